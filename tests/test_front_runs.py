"""Searches for a Pareto front through the command line: any number of workers, any death, and what follows."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

CLOCKS = ("seconds", "finished", "search_seconds", "speculative")
SMALL = {
    "cells-demo": ["search.population=4", "search.generations=2", "search.epochs=1"],
    "pareto-demo": [
        "search.population=6", "search.generations=2", "search.supernet.epochs=3",
        "search.supernet.rank_networks=3", "search.supernet.rank_epochs=1",
        "search.supernet.recalibration=64", "space.width_multipliers=[0.5,1]",
    ],
}  # fmt: skip
TRIALS = {"cells-demo": 8, "pareto-demo": 2 * 3 + 2 * 6}
PRESETS = tuple(SMALL)


def search(preset, *more):
    chosen = [*SMALL[preset], "data.data_fraction=0.3"]
    settings = [part for setting in chosen for part in ("--set", setting)]
    return ["search", "--preset", preset, *settings, *more]


def journal(run):
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines]


def front(run):
    best = json.loads((run / "best.json").read_text())
    return best["front"], best.get("tau")


@pytest.fixture(scope="module", params=PRESETS)
def reference(request, tmp_path_factory):
    """The small search by the serial executor, never interrupted."""
    folder = tmp_path_factory.mktemp("front")
    arguments = search(request.param, "--run", "r", "--executor", "serial", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "facenas.cli", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    return request.param, folder / "runs" / "r", json.loads(done.stdout)


def test_best_json_holds_the_front_of_the_journal(reference):
    preset, run, found = reference
    lines = journal(run)
    assert len(lines) == TRIALS[preset]
    costs = found["objectives"][1:]
    for member in found["front"]:
        line = lines[member["id"]]
        assert line["phase"].startswith("generation")
        assert line["accuracy"] == member["accuracy"]
        assert member["error"] == 100 - member["accuracy"]
        assert all(line.get(cost, member[cost]) == member[cost] for cost in costs)
        assert {k: line[k] for k in member["architecture"]} == member["architecture"]
    searched = [line for line in lines if line["phase"].startswith("generation")]
    assert found["accuracy"] == max(line["accuracy"] for line in searched)
    assert (run / "report.html").stat().st_size > 10_000


def test_any_number_of_workers_finds_the_same(facenas, tmp_path, reference):
    preset, run, _ = reference
    done = facenas(*search(preset, "--run", "w", "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert journal(tmp_path / "runs" / "w") == journal(run)
    assert front(tmp_path / "runs" / "w") == front(run)


def test_kill_9_and_resume_give_the_same_front(facenas, python, tmp_path, reference):
    """Killed before the first trial (in the supernet's training, if there is one) and in a generation."""
    preset, run, _ = reference
    killed = tmp_path / "runs" / "killed"
    command = search(preset, "--run", "killed", "--workers", "1")
    watched = {"pareto-demo": killed / "checkpoints" / "supernet.pt"}.get(preset, killed / "run.yaml")
    for path, lines in ((watched, 0), (killed / "trials.jsonl", TRIALS[preset] - 3)):
        process = python.start("-m", "facenas.cli", *command, cwd=tmp_path)
        while not path.exists() or (lines and path.read_bytes().count(b"\n") < lines):
            assert process.poll() is None, "the search ended before it could be killed"
            time.sleep(0.01)
        process.kill()
        process.wait()
        command = ["resume", "killed"]
    done = facenas(*command)
    assert done.returncode == 0, done.stderr
    assert journal(killed) == journal(run)
    assert front(killed) == front(run)


@pytest.mark.parametrize("reference", ["pareto-demo"], indirect=True)
def test_a_supernet_is_trained_once_for_all_runs_of_a_folder(facenas, tmp_path, reference):
    """Not by other settings: then it is another one."""
    preset, run, _ = reference
    shutil.copytree(run, tmp_path / "runs" / "first")
    (tmp_path / "runs" / "damaged" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "damaged" / "checkpoints" / "supernet.pt").write_bytes(b"PK")
    random = ["--set", "search.strategy=random", "--executor", "serial"]
    done = facenas(*search(preset, "--run", "second", *random))
    assert done.returncode == 0, done.stderr
    assert "supernet: trained already, in run first" in done.stderr
    assert "supernet: epoch" not in done.stderr
    second = tmp_path / "runs" / "second"
    ranked = [line for line in journal(run) if line["phase"].startswith("ranked")]
    assert journal(second)[: len(ranked)] == ranked
    assert epochs_of_supernet(second) == epochs_of_supernet(run)
    done = facenas(*search(preset, "--run", "third", *random, "--set", "recipe.lr=0.2"))
    assert done.returncode == 0, done.stderr
    assert "supernet: epoch 3 of 3" in done.stderr


def epochs_of_supernet(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["trial"] == "supernet"]


def test_the_journal_replays_and_an_edited_one_does_not(facenas, reference, tmp_path):
    _, run, found = reference
    told = json.loads(facenas("replay", str(run), "--json").stdout)
    assert (told["matched"], told["final_matches"]) == (found["trials"], True)
    shutil.copytree(run, tmp_path / "edited")
    lines = (run / "trials.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    last["in_channels"] = 3
    (tmp_path / "edited" / "trials.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    done = facenas("replay", "edited", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["matched"] == found["trials"] - 1


def test_a_member_of_the_front_is_recommended_and_trained(facenas, tmp_path, reference):
    _, run, found = reference
    cost = found["objectives"][1]
    cheapest = min(found["front"], key=lambda member: member[cost])
    told = json.loads(facenas("report", str(run), "--budget", f"{cost}={cheapest[cost]}", "--json").stdout)
    assert told["recommended"]["id"] == cheapest["id"]
    pick = ["train", str(run), "--pick", str(cheapest["id"]), "--run", "picked", "--epochs", "1"]
    done = facenas(*pick, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["architecture"] == cheapest["architecture"]
    done = facenas("train", str(run), "--pick", "9999", "--run", "none")
    assert done.returncode == 2
    assert "pick 9999: is not on the front" in done.stderr


def test_a_space_and_a_strategy_that_do_not_fit_are_told(facenas):
    done = facenas(*search("cells-demo", "--set", "search.strategy=macro_micro"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    done = facenas(*search("cells-demo", "--set", "search.supernet={epochs: 1}"))
    assert done.returncode == 2
    assert "has no supernet" in done.stderr


def test_memory_is_an_objective_of_cells(facenas):
    settings = ["--set", "search.objectives=[memory]", "--run", "m", "--executor", "serial"]
    done = facenas(*search("cells-demo", *settings, "--json"))
    assert done.returncode == 0, done.stderr
    front = json.loads(done.stdout)["front"]
    assert all(member["memory"] > 4 * 1000 for member in front)  # float32 weights and activations


@pytest.mark.parametrize("reference", ["pareto-demo"], indirect=True)
def test_a_full_disk_while_trials_run_leaves_the_supernets_epochs_whole(facenas, tmp_path, reference):
    """The log of a search is opened after the supernet has written its own lines into metrics.jsonl."""
    import resource

    _, first, _ = reference
    whole = (first / "metrics.jsonl").read_text().splitlines(keepends=True)
    supernet = "".join(line for line in whole if '"supernet"' in line)
    room = len(supernet.encode()) + 40  # for a part of the first trial's line

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    # Its supernet is trained already: no large file has to be written but a copy of that, before the limit.
    folder = tmp_path / "runs" / "full"
    shutil.copytree(first, folder)
    for name in ("best.json", "trials.jsonl", "right.jsonl", "report.html"):
        (folder / name).unlink()
    (folder / "metrics.jsonl").write_text(supernet)
    done = facenas("resume", "full", preexec_fn=small_files)
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr
    assert (folder / "metrics.jsonl").read_text().startswith(supernet)
    assert facenas("resume", "full").returncode == 0
    assert epochs_of_supernet(folder) == epochs_of_supernet(first)


def test_faces_are_searched_by_the_same_preset(facenas, faces, lfw):
    """Verification accuracy against MACs and memory, and the member found is trained and evaluated."""
    small = ["space.widths=[4,4,8,8]", "space.embedding=16", "space.max_blocks=1",
             "space.depth_multipliers=[1]", "data.validation_fraction=0.4", "data.pairs=20",
             "recipe.batch_size=16", "recipe.flip=true"]  # fmt: skip
    settings = [part for setting in small for part in ("--set", setting)]
    arguments = search(
        "pareto-demo", "--task", "face", "--data", str(faces), "--run", "f", "--executor", "serial"
    )
    done = facenas(*arguments, *settings, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["objectives"] == ["error", "macs", "memory"]
    assert found["front"][0]["architecture"]["task"] == "face"
    done = facenas("train", "f", "--epochs", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verification"]["pairs"] == 20
    done = facenas("eval", "--bench", "lfw", "--model", "f", "--data", str(lfw), "--json")
    assert done.returncode == 0, done.stderr
    # Both pictures of a person are the same; to a network this small some strangers look alike too.
    assert json.loads(done.stdout)["accuracy"] > 0.8
