"""Every shipped preset, and every command in the README and the docs, is run: scaled down by --set."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from facenas.runs.presets import load_run_config
from facenas.spaces import IRArchitecture
from facenas.studies.base import study_names

# One depth, two widths, one epoch, and a few images: seconds instead of hours.
SCALED = [
    "space.max_width=4", "space.min_width=2",
    "search.min_epochs=1", "search.depth_epoch_step=0", "search.width_epoch_step=0",
    "search.micro_epochs=1", "recipe.batch_size=16",
]  # fmt: skip
SCALED_IMAGES = [*SCALED, "space.min_depth=3", "space.max_depth=3"]
SCALED_FACES = [
    *SCALED, "space.min_depth=10", "space.max_depth=10", "space.embedding=16",
    "data.pairs=20", "data.validation_fraction=0.3",
]  # fmt: skip
SCALED_FRONT = ["search.population=4", "search.generations=1", "recipe.batch_size=16"]
SCALED_CELLS = [
    *SCALED_FRONT, "search.epochs=1", "space.max_cells=2", "space.base_widths=[4]", "space.max_blocks=1",
]  # fmt: skip
SCALED_SUPERNET = [
    *SCALED_FRONT, "search.supernet.epochs=1", "search.supernet.rank_networks=2",
    "search.supernet.rank_epochs=1", "search.supernet.recalibration=32", "space.widths=[4,8]",
    "space.width_multipliers=[1]", "space.depth_multipliers=[1]", "space.max_blocks=1",
]  # fmt: skip
# The start and two moves, one of the network and one of the protocol.
SCALED_JOINT = [
    "search.trials=3", "search.epochs=1", "space.min_width=2", "space.max_width=4", "recipe.batch_size=16",
    "search.protocol={lr: [0.05, 0.1]}",
]  # fmt: skip
JOINT_SPACES = {
    "joint": ["space.min_depth=3", "space.max_depth=4"],
    "joint-face": [
        "space.min_depth=10", "space.max_depth=12", "space.embedding=16", "data.pairs=20",
        "data.validation_fraction=0.3",
    ],
}  # fmt: skip
SCALED_BOUNDS = [
    "space.min_depth=3", "space.max_depth=4", "space.min_width=2", "space.max_width=4", "recipe.batch_size=16",
]  # fmt: skip
STUDIES = {
    "ranking": [*SCALED_BOUNDS, "study.networks=4", "study.epochs=2"],
    "subset": [*SCALED_BOUNDS, "study.networks=4", "study.epochs=1", "study.fractions=[0.5]"],
    "init": [*SCALED_IMAGES, "study.subsets=1", "study.epochs=1", "recipe.batch_size=8"],
    "repeat": [*SCALED_IMAGES, "study.seeds=2"],
    "random": [*SCALED_IMAGES, "study.seeds=1", "study.networks=4", "study.epochs=1", "space.max_depth=4"],
    "operations": [*SCALED_IMAGES, "study.seeds=1", "study.epochs=1"],
    "tables": [],
}
SCALED_FACE_FRONT = [
    *SCALED_SUPERNET, "search.supernet=null", "search.epochs=1", "data.pairs=20",
    "data.validation_fraction=0.3",
]  # fmt: skip
ALIKE = {"efar-small": "pareto-face", "efar-large": "pareto-face"}  # but for bounds: one of them is run
FACES = ("small", "medium", "demo")
SCALED_TREND = [setting for setting in SCALED_IMAGES if "width_epoch_step" not in setting]
OTHERS = {"cells": SCALED_CELLS, "pareto": SCALED_SUPERNET, "trend": SCALED_TREND}
OTHERS |= {name: SCALED_JOINT + space for name, space in JOINT_SPACES.items()}
OTHERS["pareto-face"] = SCALED_FACE_FRONT


def scaled(preset: str) -> list[str]:
    images = OTHERS.get(preset.removesuffix("-demo"), SCALED_IMAGES)
    settings = SCALED_FACES if preset in FACES else images
    return [part for setting in settings for part in ("--set", setting)]


def scaled_study(name: str) -> list[str]:
    """Settings for a shipped study; the files of the docs are small."""
    kind = name.removesuffix("-demo")
    few = ["data.data_fraction=0.2"] if kind != name else []  # of the digits
    few += ["study.fraction=0.2"] if few and kind in ("random", "operations", "init") else []
    return [*(STUDIES[kind] if kind in study_names() else []), *few]


@pytest.fixture
def home(tmp_path):
    """A home folder: IDX files in ~/data, pictures in ~/pictures; tiny.json, a network for faces."""
    from PIL import Image

    rng = np.random.default_rng(0)
    root = tmp_path / "data" / "fashion-mnist"
    root.mkdir(parents=True)
    for part, count in (("train", 80), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(root / f"{part}-images-idx3-ubyte", images)
        write_idx(root / f"{part}-labels-idx1-ubyte", labels)
    for name in ("mnist", "cifar10"):
        (tmp_path / "data" / name).symlink_to(root)
    for label in ("cats", "dogs"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{i}.png")
    (tmp_path / "tiny.json").write_text(
        json.dumps(IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=16).to_json())
    )
    return tmp_path


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


# docs/studies.md runs the studies' demos.
# The recipe of fine-tuning holds people out to choose on.
FEW_OWN = ["data.pairs=20", "data.test_fraction=0", "data.validation_fraction=0.8", "recipe.batch_size=8"]
CONFIGS = sorted(
    p for p in (ROOT / "configs").glob("*/*.yaml") if p.match("presets/*") or "-demo" not in p.stem
)


@pytest.mark.parametrize(("preset", "other"), ALIKE.items())
def test_presets_that_are_alike_differ_in_bounds_alone(preset, other):
    trees = [load_run_config(name, [], {}).model_dump(mode="json") for name in (preset, other)]
    limits = [tree["search"].pop("limits") for tree in trees]
    widths = [tree["space"].pop("widths") for tree in trees]
    assert trees[0] == trees[1]
    assert limits == [{"parameters": {"efar-small": 2e6, "efar-large": 5e6}[preset]}, {}]
    assert max(widths[0]) >= max(widths[1])


def head_commands(path: Path) -> list[str]:
    """The commands in the comment that a preset or recipe begins with."""
    lines = re.findall(r"^#   ((?:facenas|torchrun) .*)$", path.read_text(), re.MULTILINE)
    return [command for line in lines for command in line.split(" && ")]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_commands_in_the_head_of_a_configuration_run(python, home, faces, path):
    """In order, on small data; a preset's head tells the hardware too."""
    told = head_commands(path)
    if path.parent.name == "presets":
        assert f"facenas search --preset {path.stem} " in told[0] + " "
        assert "Hardware" in path.read_text()
    if path.stem in ALIKE:
        return
    small = {
        "casia.zarr": faces, "own.zarr": faces, "ir18": "tiny.json", "ir50": "tiny.json", "DIR": home / "data",
        "mnist": "fashion-mnist", "cifar10": "fashion-mnist", "imagenet/": home / "pictures",
    }  # fmt: skip
    starts = {"facenas": ["-m", "facenas.cli"], "torchrun": ["-m", "torch.distributed.run"]}
    for line in told:
        start, *words = shlex.split(line.replace("~", str(home)))
        if "--pick" in words:
            front = json.loads((home / "runs" / words[1] / "best.json").read_text())["front"]
            words[words.index("--pick") + 1] = str(front[0]["id"])
        words = [str(small.get(word, word)) for word in words]
        at = words.index("facenas.cli") + 1 if start == "torchrun" else 0
        command = [*starts[start], *words, *scaled_down(["facenas", *words[at:]], faces)]
        done = python.run(*command, cwd=home)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def serial(words: list[str]) -> list[str]:
    """Workers would spend most of their time on importing torch."""
    return [] if "--executor" in words else ["--executor", "serial"]


def scaled_down(words: list[str], faces: Path) -> list[str]:
    """What is added to a command to make it a matter of seconds."""
    if words[1] == "search":
        preset = words[words.index("--preset") + 1]
        # The 2,880 faces of --data demo take half a minute to draw.
        given = ["--data", str(faces)] if preset == "demo" else []
        return [*scaled(preset), *serial(words), *given]
    if words[1] == "study":
        return [*(part for setting in scaled_study(words[2]) for part in ("--set", setting)), *serial(words)]
    if words[1] != "train":
        return []
    # Of 14 identities few are left to train on: an epoch of IR-18 takes long.
    few = ["data.pairs=20", "data.test_fraction=0.85", "recipe.batch_size=8"]
    small = few if "--recipe" in words else FEW_OWN if words[2] == "--from" else []
    return ["--epochs", "1", *(part for setting in small for part in ("--set", setting))]


def unpack(store: Path, folder: Path) -> None:
    """The faces of a store as a folder by identity."""
    from facenas.data.faces.store import open_store

    opened = open_store(store)
    for i, label in enumerate(opened.labels):
        (folder / opened.names[label]).mkdir(parents=True, exist_ok=True)
        (folder / opened.names[label] / f"{i}.jpg").write_bytes(bytes(opened.encoded(i)))
