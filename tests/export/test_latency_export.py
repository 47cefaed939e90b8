"""Latency on a target: the zip, its script run as the target would, and a search by what it measured."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import facenas
from facenas.cli import main
from facenas.execution import TrainAlone
from facenas.export import latency as exporting
from facenas.models.latency_table import read_table
from facenas.runs import open_run
from facenas.runs.presets import load_run_config
from facenas.runs.replay import replay
from facenas.spaces import PlainArchitecture, fingerprint
from facenas.strategies import Budget, Candidate

SPACE = {
    "space.operations": ["skip", "separable3", "conv3"],
    "space.widths": [4, 8],
    "space.width_multipliers": [1],
    "space.depth_multipliers": [1],
}
SEARCH = {
    "search.supernet": None, "search.population": 4, "search.generations": 2,
    "search.objectives": ["parameters", "latency"],
}  # fmt: skip
# What the script may import: Python's own, and two packages.
ALONE = """
import runpy, sys
class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "onnxruntime"}:
            raise ImportError(f"the target has no {name}")
sys.meta_path.insert(0, Refusal())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """latency.json of a small space."""
    folder = tmp_path_factory.mktemp("target")
    told = facenas.export_latency("pareto-demo", folder / "bench.zip", networks=6, draws=40, settings=SPACE)
    assert (told["networks"], told["networks_known"]) == (6, "100 of 100")
    with zipfile.ZipFile(folder / "bench.zip") as zipped:
        assert all(content.isascii() for content in zipped.namelist())
        zipped.extractall(folder)
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "bench.py"), "--rounds", "1", "--runs", "3"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "latency.json"


def judged(candidate):
    """Stands for a training: an accuracy at once."""
    return 50 + candidate.architecture.count_parameters() / 1000


def changed(table: Path, path: Path, change) -> Path:
    tree = json.loads(table.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    return path


def test_the_script_is_python_3_8():
    ast.parse(exporting._SCRIPT.read_text(), feature_version=(3, 8))


def test_a_network_has_what_was_measured_else_the_sum_of_its_blocks(table, tmp_path):
    found, tree = read_table(table), json.loads(table.read_text())
    space = facenas.spaces.Graph(**{key.partition(".")[2]: value for key, value in SPACE.items()})
    space = space.bind(facenas.spaces.ImageFacts(1, 10, 8))
    whole = tree["networks"][0]
    arch = facenas.spaces.from_json(whole["architecture"])
    assert found(arch) == whole["ms"]
    blocks = read_table(changed(table, tmp_path / "blocks.json", lambda tree: tree["networks"].pop(0)))
    assert found(arch) != blocks(arch) > 0
    assert found(space.uniform("conv3")) > 0
    assert found(PlainArchitecture.uniform(3, 4, 1, 10)) == math.inf
    assert found.error.networks >= 5
    assert found.error.median is not None


def test_a_search_asks_for_what_keeps_the_limit_and_keeps_its_table(table, tmp_path):
    limit = sorted(one["ms"] for one in json.loads(table.read_text())["networks"])[3]
    moved = tmp_path / "latency.json"
    moved.write_bytes(table.read_bytes())
    found = facenas.search(
        "pareto-demo", run=tmp_path / "runs" / "a", evaluate=judged, latency=moved, seed=1,
        executor="serial", settings=SPACE | SEARCH | {"search.limits": {"latency": limit}},
    )  # fmt: skip
    lines = [json.loads(line) for line in (found.run / "trials.jsonl").read_text().splitlines()]
    assert len(lines) > 4
    assert all(0 < line["values"]["latency"] <= limit for line in lines)
    known = read_table(table)
    assert found.details["latency_table"]["fingerprint"] == known.fingerprint
    assert str(known.error) in (found.run / "report.html").read_text()
    assert all(member["latency"] == lines[member["id"]]["values"]["latency"] for member in found.front)
    moved.unlink()
    again = found.run.rename(tmp_path / "b")
    assert replay(again).same
    (again / "best.json").unlink()
    assert facenas.resume(again).front == found.front
    assert open_run(tmp_path, "b").about["latency"]["fingerprint"] == known.fingerprint


def test_the_trial_key_tells_which_table_it_was(table, tmp_path):
    """Without one it is what it always was."""
    other = changed(table, tmp_path / "other.json", lambda tree: tree["empty"].update(spread_ms=9))
    config = load_run_config("pareto-demo", [], {})
    candidate = Candidate(PlainArchitecture.uniform(3, 4, 1, 10), Budget(1), "test", "test")
    told = [
        TrainAlone(tmp_path, config.data, "0" * 64, config.recipe, 0, latency).identity(candidate)
        for latency in (False, True, read_table(table), read_table(other))
    ]
    assert [one.get("latency") for one in told[:2]] == [None, True]
    assert len({fingerprint(one) for one in told}) == 4


def negative(tree):
    tree["blocks"][0]["ms"] = -1


def unmeasured(tree):
    del tree["target"]


def without_blocks(tree):
    tree["blocks"] = tree["blocks"][:2]


@pytest.mark.parametrize(
    ("change", "settings", "sentence"),
    [
        (negative, {}, "blocks.0.ms: Input should be greater than 0"),
        (unmeasured, {}, "was not measured yet: run bench.py on the target"),
        (without_blocks, {}, "in 100 random networks of this space, such as conv2d"),
        (dict, {"space.kind": "cells"}, "was measured for a space of kind graph, images of 1x8x8"),
        (dict, {"search.objectives": ["macs"]}, "search.objectives does not name latency"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_there_is_a_run(
    table, tmp_path, change, settings, sentence
):
    path = changed(table, tmp_path / "latency.json", change)
    with pytest.raises(facenas.UserError, match=sentence):
        facenas.search(
            "pareto-demo", run=tmp_path / "a", evaluate=judged, latency=path,
            settings={**({} if "space.kind" in settings else SPACE), **SEARCH, **settings},
        )  # fmt: skip
    assert not (tmp_path / "a").exists()


def test_the_candidates_of_a_run_come_first(table, tmp_path, capsys):
    found = facenas.search(
        "pareto-demo", run=tmp_path / "a", evaluate=judged, executor="serial",
        settings=SPACE | SEARCH | {"search.objectives": ["parameters"], "search.generations": 1},
    )  # fmt: skip
    out = tmp_path / "a.zip"
    few = ["--networks", "2", "--draws", "0"]
    with pytest.raises(SystemExit, match="0"):
        main(["latency", "export", str(found.run), "--out", str(out), *few, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["candidates"], told["networks"]) == (4, 2)
    with zipfile.ZipFile(out) as zipped:
        networks = json.loads(zipped.read("manifest.json"))["networks"]
    assert networks[0]["architecture"] == found.front[0]["architecture"]
    assert len(networks) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["latency", "export", str(found.run), "--out", str(tmp_path / "a.txt")])
