"""Candidates judged by group of the people held out: what they are told, and as objectives of a search."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import facenas
from facenas.data.config import DataConfig
from facenas.data.faces.store import open_store
from facenas.data.faces.writer import StoreWriter
from facenas.device import pick_device
from facenas.errors import UserError
from facenas.evaluation.embedders.module import pair_distances
from facenas.evaluation.metrics.ten_fold import ten_fold_of
from facenas.execution import TrainAlone
from facenas.runs.config import RunConfig
from facenas.runs.evaluator import _key as supernet_key
from facenas.runs.run import Run
from facenas.spaces import IRArchitecture
from facenas.strategies.pareto import SupernetSettings
from facenas.training.faces import FaceTask, held_out
from facenas.training.recipes import FaceRecipe
from facenas.training.tasks import TaskContext

ARCH = IRArchitecture.uniform(2, (1, 1, 1, 1), embedding=16)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """44 people with 3 images each; `noisy` ones vary more. Two are of a group too small to be compared."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("groups")
    rows = ["identity;look;shoes"]
    with StoreWriter(root / "faces.zarr", "patterns") as writer:
        for person in range(44):
            pattern = cv2.resize(rng.uniform(40, 215, (5, 5, 3)), (112, 112))
            for _ in range(3):
                noisy = pattern + rng.normal(0, 60 * (person % 2) + 5, (112, 112, 3)) + rng.normal(0, 20)
                writer.add(f"p{person}", np.clip(noisy, 0, 255).astype(np.uint8))
            rows.append(f"p{person};{'rare' if person < 2 else 'noisy' if person % 2 else 'clear'};brown")
    (root / "groups.csv").write_text("\n".join(rows))
    return root


def config(home: Path, **more: object) -> DataConfig:
    named = {"name": str(home / "faces.zarr"), "groups": home / "groups.csv"}
    return DataConfig(**{**named, "validation_fraction": 0.8, "pairs": 60, **more})


def test_values_by_plain_loops(home):
    store, data = open_store(home / "faces.zarr"), config(home)
    task = FaceTask(TaskContext(ARCH, store, data, FaceRecipe(batch_size=8), 0, 5, pick_device()))
    score = task.score()
    assert list(task._groups.groups) == ["look"]  # of one pair of shoes there is nothing to compare
    assert list(task._groups.groups["look"]) == ["clear", "noisy"]  # and `rare` is too small
    held = set(store.labels[held_out(store.labels, data, 0)[1]].tolist())
    pairs, same = task._judged
    found = ten_fold_of(pair_distances(task.model, store, pairs, task.device), same)
    assert (score.accuracy, score.right.tolist()) == (100 * found.accuracy, found.right.tolist())
    errors = {}
    for group, own in task._groups.groups["look"].items():
        of, kinds = task._groups.pairs[own], task._groups.same[own]
        people = store.labels[of]
        assert np.array_equal(people[:, 0] == people[:, 1], kinds)
        assert kinds.sum() == len(kinds) / 2 == 15
        assert {store.names[int(who)] for who in np.unique(people)} <= {
            f"p{n}" for n in range(2, 44) if (n % 2 == 1) == (group == "noisy") and n in held
        }
        distances = pair_distances(task.model, store, of, task.device)
        errors[group] = 100 * np.mean((distances < found.threshold_squared) != kinds)
    assert score.values["worst_group"] == pytest.approx(max(errors.values()))
    assert score.values["group_gap"] == pytest.approx(max(errors.values()) - min(errors.values()))


def test_keys_follow_what_the_table_says(home, tmp_path):
    plain, with_groups = config(home, groups=None).deciding(), config(home).deciding()
    assert "groups" not in plain
    (tmp_path / "moved.csv").write_bytes((home / "groups.csv").read_bytes())
    assert config(home, groups=tmp_path / "moved.csv").deciding() == with_groups
    evaluator = TrainAlone(home / "faces.zarr", config(home), "f", FaceRecipe(), 0)
    assert evaluator.files() == (home / "faces.zarr", home / "groups.csv")
    assert evaluator.reading((Path("a"), Path("b.csv"))).data.groups == Path("b.csv")


def test_a_supernet_is_the_same_with_any_table(home):
    """Groups decide what its networks are judged by, not its weights."""
    faces = {"space": facenas.spaces.IR(), "recipe": FaceRecipe()}
    plain, with_groups = (RunConfig(**faces, data=config(home, **more)) for more in ({"groups": None}, {}))
    runs = [Run(home, one, {"data": {"fingerprint": "f"}}) for one in (plain, with_groups)]
    assert len({supernet_key(run, SupernetSettings()) for run in runs}) == 1


def test_a_search_makes_the_worst_group_small(home, tmp_path):
    strategy = facenas.strategies.STRATEGIES.get("random")
    objectives = {"objectives": ("worst_group", "group_gap"), "limits": {"group_gap": 99.0}}
    found = facenas.search(
        space=facenas.spaces.IR(min_depth=10, max_depth=12, min_width=2, max_width=3, embedding=8),
        strategy=strategy(population=4, generations=1, epochs=1, **objectives),
        data=str(home / "faces.zarr"),
        recipe=FaceRecipe(batch_size=8),
        settings={"data.groups": str(home / "groups.csv"), "data.validation_fraction": 0.8, "data.pairs": 40},
        executor="serial",
        run=tmp_path / "run",
    )
    assert found.details["objectives"] == ["error", "worst_group", "group_gap"]
    trials = [json.loads(line) for line in (tmp_path / "run" / "trials.jsonl").read_text().splitlines()]
    assert len(trials) == 4
    for member in found.front:
        assert member["worst_group"] == trials[member["id"]]["values"]["worst_group"] > 0
        assert 0 <= member["group_gap"] <= member["worst_group"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "worst group, %" in page


def test_faults_are_told_before_anything_runs(home, tmp_path):
    given = {"data": str(home / "faces.zarr"), "recipe": FaceRecipe(batch_size=8), "run": tmp_path / "run"}
    given["space"] = facenas.spaces.IR(min_width=2, max_width=4)
    given["strategy"] = facenas.strategies.STRATEGIES.get("random")(objectives=("worst_group",))
    with pytest.raises(UserError, match=r"worst_group needs a table of groups, as data\.groups"):
        facenas.search(**given)
    settings = {"data.groups": str(home / "groups.csv"), "data.pairs": 60}  # of 44 people four are held out
    with pytest.raises(UserError, match=r"no column has two groups of 10 or more of the 4 people held out"):
        facenas.search(**given, settings=settings)
    (tmp_path / "images.csv").write_text("image,look\np0/0,clear\np1/0,noisy\n")
    settings["data.groups"] = str(tmp_path / "images.csv")
    with pytest.raises(UserError, match=r"images\.csv: .* a search needs a table by identity, not by image"):
        facenas.search(**given, settings=settings)
    assert not (tmp_path / "run").exists()
