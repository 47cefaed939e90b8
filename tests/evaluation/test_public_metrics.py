"""The public metrics: what they are called, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import facenas.evaluation


def test_every_public_name_is_there():
    assert all(hasattr(facenas.evaluation, name) for name in facenas.evaluation.__all__)


def test_the_metrics_need_numpy_alone():
    """Torch takes seconds to import, scikit-learn one."""
    code = "import sys, facenas.evaluation; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "sklearn", "scipy", "pandas", "zarr", "cv2"}
    assert heavy.isdisjoint(loaded.stdout.split())
