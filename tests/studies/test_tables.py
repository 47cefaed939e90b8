"""The paper's tables: rows as printed, cells of hand-made runs, what is missing, and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from facenas.errors import UserError
from facenas.runs import create_run
from facenas.runs.presets import load_run_config
from facenas.spaces import IRArchitecture, PlainArchitecture
from facenas.studies.tables import Finished, Tables, findings, nearest, published_tables

PAPER = Path(__file__).parents[2].parent / "shared" / "seeds" / "000_66ffdfa837a1a9fb.txt"
IMAGES = {"fingerprint": "0", "in_channels": 3, "classes": 10, "image_size": 32, "train_images": 1000}
FACES = {"name": "casia", "fingerprint": "1", "in_channels": 3, "image_size": 112, "train_images": 500}


def made_run(folder, name, preset, data, arch=None, trial=(43_200.0, 10_000), **train):
    """A run of the preset whose search took `trial` (seconds, images); without `arch` nothing is trained."""
    run = create_run(folder, name, load_run_config(preset, [], {}), data, "made up")
    line = {"trial": 0, "seconds": trial[0], "images": trial[1]}
    (run.folder / "trials.jsonl").write_text(json.dumps(line) + "\n")
    if arch is not None:
        tree = {"architecture": arch.to_json(), **train}
        (run.folder / "train.json").write_text(json.dumps(tree))
    return run


def told(*runs):
    found = findings([Finished(run, run.trained(), run.best()) for run in runs])
    json.dumps(found.to_json(), allow_nan=False)
    return found, {table.name: table for table in found.tables}


def numbers(cells):
    return [float(cell) for cell in cells if re.fullmatch(r"\d+(\.\d+)?", str(cell))]


def test_rows_are_those_of_the_paper():
    if not PAPER.is_file():
        pytest.skip("needs the paper's text in ../shared")
    text = PAPER.read_text()
    for table in published_tables():
        part = text[text.index(f"\nTable {table.name[-1]}. ") :]
        printed = [line.split("\t") for line in part.splitlines()]
        for method, *cells in table.rows:
            word = method.split("(")[0].strip().lower()
            rows = [numbers(row[1:]) for row in printed if row[0].lower().startswith(word)]
            assert numbers(cells) in rows, method


def test_runs_fill_the_cells_of_their_set_and_size(tmp_path):
    small, large = PlainArchitecture.uniform(10, 16, 3, 10), PlainArchitecture.uniform(12, 64, 3, 10)
    found, tables = told(
        made_run(tmp_path, "a", "tiny", IMAGES | {"name": "cifar10"}, small, test_accuracy=95.5),
        made_run(tmp_path, "b", "tiny", IMAGES | {"name": "kmnist"}, small, test_accuracy=99.0),
        made_run(tmp_path, "c", "tiny", IMAGES | {"name": "fashion_mnist"}, small, test_accuracy=94.0),
        made_run(tmp_path, "d", "mobile", IMAGES | {"name": "kmnist"}, large, test_accuracy=99.5),
        made_run(tmp_path, "e", "tiny", IMAGES | {"name": "cifar10 (cat, dog)"}, small, test_accuracy=99.9),
    )
    millions = small.count_parameters() / 1e6
    third, fifth = tables["table3"].rows, tables["table5"].rows
    assert third[0] == ("facenas (tiny): a", 4.5, millions, 0.5, "plain", "macro_micro")
    assert third[1] == ("facenas (mobile)", *["no run"] * 5)
    assert fifth[0] == ("facenas (tiny): b, c", *["no run"] * 3, 99.0, millions, 0.5, 94.0, millions, 0.5)
    assert fifth[1][0] == "facenas (mobile): d"
    assert found.values["not_used"] == ["e"]
    assert found.values["compared"][0] == {
        "table": "table3",
        "row": "a",
        "measure": "error@cifar10",
        "ours": 4.5,
        "paper": 4.09,
    }
    missing = [row[:3] for row in tables["missing"].rows]
    assert ("Table 3", "mobile", "cifar10") in missing
    assert ("Table 5", "tiny", "emnist_balanced") in missing
    assert ("Table 5", "tiny", "kmnist") not in missing


def test_a_search_that_is_not_trained_says_how_long_that_takes(tmp_path):
    _, tables = told(made_run(tmp_path, "a", "tiny", IMAGES | {"name": "cifar100"}, trial=(3_600.0, 60_000)))
    assert tables["table4"].rows[0][:2] == ("facenas (tiny): a", "not trained")
    (row,) = [row for row in tables["missing"].rows if row[2] == "a: its full training"]
    assert row[3:] == ("facenas train a", "10.0 h at the pace of its search")  # 600 epochs of 1,000 images


def test_faces_tell_what_was_evaluated(tmp_path):
    arch = IRArchitecture.uniform(32, (3, 7, 15, 3))
    run = made_run(tmp_path, "face", "small", FACES, arch, head_parameters=2_000_000, test_accuracy=None)
    results = {
        "lfw": {"bench": "lfw", "accuracy": 0.995, "warnings": []},
        "cfp_fp": {"bench": "cfp_fp", "accuracy": 0.9, "warnings": ["fewer pairs"]},
        "ijbc": {"bench": "ijbc", "tar_at_nearest_far": {"0.0001": 0.93}},
        "tinyface": {"bench": "tinyface", "rank_1": 0.5, "rank_5": 0.6, "rank_20": 0.7},
    }
    for bench, tree in results.items():
        (run.folder / "evaluations" / bench).mkdir(parents=True)
        (run.folder / "evaluations" / bench / "results.json").write_text(json.dumps(tree))
    _, tables = told(run)
    row = tables["table6"].rows[0]
    assert row[2] == "16.64 (14.64 + 2.00)"
    assert row[3:5] == (99.5, "90.00*")
    assert set(row[5:]) == {"not measured"}
    assert tables["table7"].rows[0][3:] == ("not measured", 93.0, 50.0, 60.0, 70.0)
    beside = tables["light"].rows
    assert beside[0][1] == "facenas: face"
    assert beside[0][2] == pytest.approx(14.638, abs=1e-3)
    assert "EdgeFace-base" in [one[1] for one in beside[1:]]
    unknown = [row[2] for row in tables["missing"].rows if str(row[2]).startswith("face on")]
    assert unknown == ["face on cplfw, agedb_30, calfw", "face on ijbb"]


def test_nearest_is_by_factor():
    networks = [{"macs": value} for value in (10, 100, 250, 1000)]
    assert [one["macs"] for one in nearest(networks, "macs", 170)] == [250, 100]


def test_by_command(facenas, tmp_path):
    arch = PlainArchitecture.uniform(10, 16, 3, 10)
    made_run(tmp_path / "runs", "a", "tiny", IMAGES | {"name": "cifar10"}, arch, test_accuracy=95.5)
    done = facenas("study", "tables", "runs", "--run", "tables", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["values"]["runs"] == ["a"]
    folder = tmp_path / "runs" / "tables"
    assert (
        (folder / "tables" / "table3.md").read_text().splitlines()[4].startswith("| facenas (tiny): a | 4.50 |")
    )
    page = (folder / "report.html").read_text()
    assert "Its runs" not in page
    assert facenas("report", "tables").returncode == 0
    assert facenas("runs").returncode == 0
    done = facenas("study", "ranking-demo", "runs")
    assert (done.returncode, "runs: is not a known setting" in done.stderr) == (2, True)


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(UserError, match="is no run, and holds none"):
        Tables(runs=(tmp_path,))
