"""What all tests share: a cache of their own, a small prepared image set, and trials on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked_python import Python
from hypothesis import settings

# A time limit for an example would fail on a busy machine; and what fails must fail again. Others by hand:
# FACENAS_RANDOM=1 pytest
settings.register_profile("facenas", deadline=None, derandomize=not os.environ.get("FACENAS_RANDOM"))
settings.load_profile("facenas")

ROOT = Path(__file__).parent.parent
if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, ...
    # A core for each: two processes with two threads on the same two cores are many times slower.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})
# The longest first: the last file that pytest-xdist hands out should leave no core idle for long.
LONG = ("docs", "driver", "face_runs", "front_runs", "configs", "contributing", "examples")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The other files keep their order."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


# A search of a few seconds: 1 to 3 epochs on the digits, depth 4 to 5, width 8 to 6.
SMALL_SEARCH = [
    "search.min_epochs=1",
    "search.width_epoch_step=0",
    "search.micro_epochs=1",
    "space.max_depth=5",
    "space.max_width=8",
    "space.min_width=6",
    "data.data_fraction=0.4",
    "recipe.batch_size=16",
]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FACENAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a machine's own name need not resolve


@pytest.fixture(scope="session")
def digits(_own_cache: None) -> Path:
    """The prepared folder of scikit-learn's digits."""
    from facenas.data import prepare
    from facenas.data.config import DataConfig

    return prepare(DataConfig(name="digits"))


@pytest.fixture
def make_evaluator(digits: Path) -> Callable:
    """Builds the evaluator of small trainings on the digits; keyword arguments go to the recipe."""
    from facenas.data import open_image_set
    from facenas.data.config import DataConfig
    from facenas.execution import TrainAlone
    from facenas.training.recipes import Recipe

    fingerprint = open_image_set(digits).fingerprint

    def build(**recipe: object) -> TrainAlone:
        data = DataConfig(name="digits", data_fraction=0.2)
        settings = Recipe.model_validate({"pad": 1, "cutout": 2, **recipe})
        return TrainAlone(digits, data, fingerprint, settings, split_seed=0)

    return build


@pytest.fixture
def make_spec(make_evaluator: Callable) -> Callable:
    """Builds small trials of `make_evaluator()`."""
    from facenas.execution import TrialSpec
    from facenas.spaces import PlainArchitecture
    from facenas.strategies import Budget, Candidate

    def build(width: int = 4, epochs: int = 1) -> TrialSpec:
        arch = PlainArchitecture.uniform(3, width, 1, 10)
        candidate = Candidate(arch, Budget(epochs), "depth", "test")
        return TrialSpec(candidate, make_evaluator().identity(candidate))

    return build


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 14 identities with 8 images each: a smooth pattern of its own, and noise."""
    import cv2
    import numpy as np

    from facenas.data.faces.writer import StoreWriter

    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("faces") / "faces.zarr"
    with StoreWriter(path, "patterns") as writer:
        for identity in range(14):
            pattern = cv2.resize(rng.uniform(40, 215, (5, 5, 3)), (112, 112))
            for _ in range(8):
                noisy = pattern + rng.normal(0, 25) + rng.normal(0, 20, pattern.shape)
                writer.add(f"person {identity}", np.clip(noisy, 0, 255).astype(np.uint8))
    return path


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    """Forty people with two pictures each, and a pairs file of two folds in LFW's own form."""
    import numpy as np
    from PIL import Image

    rng, folder = np.random.default_rng(0), tmp_path / "lfw_112x112"
    pairs = ["2\t10"]
    for fold in range(2):
        people = [f"Person_{fold}_{i}" for i in range(20)]
        for name in people:
            (folder / name).mkdir(parents=True)
            face = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
            for number in (1, 2):
                Image.fromarray(face).save(folder / name / f"{name}_{number:04d}.jpg", quality=95)
        pairs += [f"{name}\t1\t2" for name in people[:10]]
        pairs += [f"{people[i]}\t1\t{people[i + 10]}\t2" for i in range(10)]
    (tmp_path / "pairs.txt").write_text("\n".join(pairs) + "\n")
    return folder


@pytest.fixture(scope="session")
def python(_own_cache: None) -> Iterator[Python]:
    """Runs `python ...`, each in a process of its own that need not import torch."""
    started = Python()
    yield started
    started.close()


@pytest.fixture
def facenas(python: Python, tmp_path: Path) -> Callable:
    """Runs the command line in a process of its own, in `tmp_path`."""

    def run(*arguments: str, cwd: Path = tmp_path, **options: object) -> subprocess.CompletedProcess:
        if not options:
            return python.run("-m", "facenas.cli", *arguments, cwd=cwd)
        command = [sys.executable, "-m", "facenas.cli", *arguments]
        return subprocess.run(command, cwd=cwd, timeout=240, capture_output=True, text=True, **options)

    return run


def small_search(*more: str) -> list[str]:
    """Arguments of the small search on the digits."""
    settings = [part for setting in SMALL_SEARCH for part in ("--set", setting)]
    return ["search", "--preset", "demo-digits", *settings, *more]


# A search of faces of a few seconds; `--data` is to be added.
SMALL_FACES = [
    "search.min_epochs=1",
    "search.width_epoch_step=0",
    "search.depth_epoch_step=0",
    "space.max_depth=12",
    "space.min_width=2",
    "space.max_width=4",
    "space.embedding=16",
    "data.validation_fraction=0.3",
    "data.pairs=20",
    "recipe.batch_size=16",
]


def small_faces(*more: str) -> list[str]:
    """Arguments of a small search of faces."""
    settings = [part for setting in SMALL_FACES for part in ("--set", setting)]
    return ["search", "--preset", "small", *settings, *more]
