"""The study of starts: its means and gains against scipy, and a small one on digits."""

from __future__ import annotations

import json

import pytest
from scipy import stats

from facenas.config import read_yaml
from facenas.errors import UserError
from facenas.spaces import PlainArchitecture
from facenas.studies import load_study
from facenas.studies.init import STARTS, Found, findings, pairs
from facenas.studies.networks import Network

ACCURACIES = {
    "Conv-3x3": [97, 99, 95],
    "Conv-7x7": [96, 97, 96],
    "Sep-3x3": [98, 99, 97],
    "Sep-7x7": [97, 97, 97],
}


def made_up():
    found = []
    for number in range(3):
        for width, start in enumerate(STARTS, start=4):
            arch = PlainArchitecture.uniform(3, width, 1, 2)
            network = Network(start, arch, 1, 90.0)
            found.append(Found(start, f"pair {number}", network, [float(ACCURACIES[start][number])]))
    return found


def test_gains_are_paired_by_classes():
    told = findings(made_up())
    json.dumps(told.to_json(), allow_nan=False)
    differences = [a - b for a, b in zip(ACCURACIES["Conv-7x7"], ACCURACIES["Sep-3x3"], strict=True)]
    low, high = stats.t.interval(0.95, 2, loc=-5 / 3, scale=stats.sem(differences))
    assert told.values["gains"]["Conv-7x7"] == pytest.approx([-5 / 3, low, high])
    assert "Sep-3x3 is the most accurate and Conv-3x3 the smallest" in told.summary[1]
    starts = {row[0]: row for row in told.tables[0].rows}
    assert starts["Sep-3x3"][2] is None
    assert starts["Sep-3x3"][-2:] == (97.96, "0.23")
    assert told.tables[1].rows[4][:2] == ("pair 1", "Conv-3x3")


def test_pairs_of_classes_are_drawn_by_the_seed():
    _, config = load_study("init-demo", [], {})
    drawn = pairs(config, {"classes": 10}, 10)
    assert len(set(drawn)) == 10
    assert all(0 <= first < second < 10 for first, second in drawn)
    assert drawn == pairs(config, {"classes": 10}, 10)
    assert drawn != pairs(config.model_copy(update={"seed": 1}), {"classes": 10}, 10)
    with pytest.raises(UserError, match="46 pairs of classes are asked for, but digits has 45"):
        pairs(config, {"classes": 10}, 46)


def test_by_command(facenas, tmp_path):
    small = ["study.subsets=1", "execution.executor=serial", "space.max_depth=3", "space.min_width=6"]
    small += ["search.min_epochs=1", "search.width_epoch_step=0", "data.data_fraction=0.5"]
    settings = [word for setting in small for word in ("--set", setting)]
    done = facenas("study", "init-demo", "--run", "starts", "--epochs", "1", *settings, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)["values"]
    (subset,) = values["subsets"]
    assert subset.startswith("digits (")
    assert values["parameters"]["Conv-7x7"] > values["parameters"]["Sep-3x3"]
    folder = tmp_path / "runs" / "starts"
    members = [path.parent.name for path in folder.glob("*/run.yaml")]
    (pair,) = [name.removesuffix("-final") for name in members if name.endswith("-final")]
    assert sorted(members) == sorted([f"{pair}-final", *(f"{pair}-{start.lower()}" for start in STARTS)])
    about = read_yaml(folder / f"{pair}-sep-7x7" / "run.yaml")
    assert about["data"]["classes"] == 2
    assert (about["config"]["space"]["operation"], about["config"]["space"]["kernel"]) == ("separable", 7)
    assert subset in (folder / "report.html").read_text()
