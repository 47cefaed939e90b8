"""The public metrics: what they are called, what importing them costs, and that their examples are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

import facenas.evaluation
from facenas.evaluation import metrics

MODULES = [one.name for one in pkgutil.iter_modules(metrics.__path__)]


def test_every_public_name_is_there():
    later = facenas.evaluation._LATER
    assert {hasattr(facenas.evaluation, name) for names in later.values() for name in names} == {True}
    assert isinstance(facenas.evaluation.benches, types.ModuleType)
    with pytest.raises(AttributeError, match="nosuch"):
        _ = facenas.evaluation.nosuch


def test_the_metrics_need_numpy_alone():
    """Torch takes seconds to import, scikit-learn one."""
    code = "import sys, facenas.evaluation; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "sklearn", "scipy", "pandas", "zarr", "cv2", "pydantic"}
    assert heavy.isdisjoint(loaded.stdout.split())


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(f"{metrics.__name__}.{name}")
    assert doctest.testmod(module).failed == 0


def test_every_public_function_of_the_metrics_has_an_example():
    finder = doctest.DocTestFinder(recurse=False)
    for name in MODULES:
        module = importlib.import_module(f"{metrics.__name__}.{name}")
        for key, value in vars(module).items():
            if isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                examples = [one.examples for one in finder.find(value, key, module)]
                assert key.startswith("_") or key == "as_floats" or any(examples), key
