"""Whole searches through the command line: the same journal from any number of workers, and after any death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import small_search

CLOCKS = ("seconds", "finished", "search_seconds", "speculative")


def journal(run):
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines]


def side_files(run):
    return [(run / name).read_text() for name in ("metrics.jsonl", "right.jsonl")]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The small search by the serial executor, never interrupted."""
    folder = tmp_path_factory.mktemp("reference")
    arguments = small_search("--run", "reference", "--executor", "serial", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "facenas.cli", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    return folder / "runs" / "reference", json.loads(done.stdout.splitlines()[-1])


def test_a_search_leaves_what_it_found(reference):
    run, found = reference
    lines = journal(run)
    assert [line["trial"] for line in lines] == list(range(len(lines)))
    assert {line["phase"] for line in lines} == {"depth", "width", "ops", "kernels"}
    assert found["trials"] == len(lines)
    best = json.loads((run / "best.json").read_text())
    assert found["architecture"] == best["architecture"]
    assert found["parameters"] == best["parameters"] == round(best["params_millions"] * 1e6)
    for line in lines:
        assert line["status"] == "ok"
        assert line["accuracy"] == 100 * line["correct"] / line["validated"]
        assert line["images"] > 0
        assert line["macs"] > line["parameters"]
    assert not (run / "ahead.jsonl").exists()
    assert (run / "report.html").stat().st_size > 10_000


def test_the_side_file_tells_which_images_were_right(reference):
    from facenas.runs import right_images

    run, _ = reference
    for line in journal(run)[:3]:
        right = right_images(run, line["trial"])
        assert (len(right), right.sum()) == (line["validated"], line["correct"])


def test_metrics_of_every_epoch(reference):
    run, _ = reference
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for trial in journal(run):
        epochs = [line for line in lines if line["trial"] == trial["trial"]]
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, trial["epochs"] + 1))
        assert max(epoch["accuracy"] for epoch in epochs) == trial["accuracy"]


@pytest.mark.parametrize("workers", [2, 4])  # by one: below
def test_the_same_decisions_and_bits_from_any_number_of_workers(facenas, tmp_path, reference, workers):
    done = facenas(*small_search("--run", "w", "--workers", str(workers), "--json"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    run = tmp_path / "runs" / "w"
    assert journal(run) == journal(reference[0])
    assert side_files(run) == side_files(reference[0])
    assert json.loads(done.stdout)["architecture"] == reference[1]["architecture"]


def test_our_own_journal_can_be_replayed(facenas, reference):
    run, found = reference
    done = facenas("replay", str(run / "trials.jsonl"), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert (told["matched"], told["trials"]) == (found["trials"], found["trials"])
    assert told["final_matches"] is True


def start(python, folder, *arguments):
    return python.start("-m", "facenas.cli", *arguments, cwd=folder)


def wait_for_lines(path, count, process):
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, "the search ended before it could be killed"
        time.sleep(0.01)


@pytest.mark.parametrize(("workers", "kills"), [(1, (2, 7)), (2, (4,))])
def test_kill_9_and_resume_again_and_again(facenas, python, tmp_path, reference, workers, kills):
    """Killed after so many trials; the last time the journal's last line is torn as well."""
    run = tmp_path / "runs" / "killed"
    process = start(python, tmp_path, *small_search("--run", "killed", "--workers", str(workers)))
    for lines in kills:
        wait_for_lines(run / "trials.jsonl", lines, process)
        process.kill()
        process.wait()
        before = (run / "trials.jsonl").read_text()
        if lines == kills[-1]:
            with (run / "trials.jsonl").open("a") as file:
                file.write(before.splitlines()[-1][:50])
            break
        process = start(python, tmp_path, "resume", "killed")
    done = facenas("resume", "killed", "--json")
    assert done.returncode == 0, done.stderr
    assert "a torn last line (50 bytes) is dropped" in done.stderr
    # What was there is there to the letter, clocks included: nothing was trained again.
    assert (run / "trials.jsonl").read_text().startswith(before)
    assert journal(run) == journal(reference[0])
    assert side_files(run) == side_files(reference[0])
    assert facenas("resume", "killed").returncode == 0  # nothing left to do


def test_ctrl_c_and_sigterm_say_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "facenas.cli"]
    first = small_search("--run", "c", "--workers", "1")
    # A terminal tells workers too, a batch system the first process alone.
    for lines, words, stop in ((1, first, os.killpg), (3, ["resume", "c"], os.kill)):
        process = subprocess.Popen(
            [*command, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        wait_for_lines(tmp_path / "runs" / "c" / "trials.jsonl", lines, process)
        stop(process.pid, signal.SIGINT if stop is os.killpg else signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1
        assert stderr.splitlines()[-1] == "facenas: stopped; `facenas resume c` goes on"
        assert "Traceback" not in stderr


def test_two_processes_on_one_run_the_second_is_refused(facenas, python, tmp_path):
    process = start(python, tmp_path, *small_search("--run", "busy", "--executor", "serial"))
    try:
        wait_for_lines(tmp_path / "runs" / "busy" / "trials.jsonl", 1, process)
        second = facenas("resume", "busy")
    finally:
        process.kill()
        process.wait()
    assert second.returncode == 2
    assert "another process is working on this run" in second.stderr
    assert "Traceback" not in second.stderr


def test_three_failed_trials_in_a_row_stop_the_search(facenas, tmp_path):
    done = facenas(*small_search("--run", "bad", "--executor", "serial", "--set", "recipe.lr=1e30"))
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert "3 trials in a row failed" in message
    assert "the loss became" in message
    lines = journal(tmp_path / "runs" / "bad")
    assert [line["status"] for line in lines] == ["failed"] * 3
    assert all(line["accuracy"] == 0 and "loss" in line["reason"] for line in lines)
    assert facenas("report", "bad").returncode == 0
    # Whoever resumes has mended the cause; here nothing was mended, so it fails as before.
    done = facenas("resume", "bad")
    assert done.returncode == 1
    assert "the last 3 trials failed; they are tried again" in done.stderr
    assert journal(tmp_path / "runs" / "bad") == lines


def test_a_full_disk_stops_the_search_and_resume_goes_on(facenas, tmp_path, reference, digits):
    """No file may grow beyond 3 kB: the journal's append fails as on a full disk."""
    import resource

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, resource.RLIM_INFINITY))

    arguments = small_search("--run", "full", "--executor", "serial")
    done = facenas(*arguments, preexec_fn=small_files)
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "resume" in done.stderr.splitlines()[-1]
    done = facenas("resume", "full")
    assert done.returncode == 0, done.stderr
    assert journal(tmp_path / "runs" / "full") == journal(reference[0])


def test_changed_images_are_noticed(facenas, tmp_path):
    from PIL import Image

    for label in "ab":
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(10):
            colour = 200 * (label == "b") + i
            Image.new("L", (8, 8), colour).save(tmp_path / "pictures" / label / f"{i}.png")
    done = facenas(*small_search("--run", "r", "--data", "pictures", "--executor", "serial"))
    assert done.returncode == 0, done.stderr
    (tmp_path / "runs" / "r" / "best.json").unlink()  # as if it were still searching
    Image.new("L", (8, 8), 99).save(tmp_path / "pictures" / "a" / "0.png")
    done = facenas("resume", str(tmp_path / "runs" / "r"), cwd="/")  # from anywhere
    assert done.returncode == 2
    assert "the images have changed since run r began" in done.stderr
    assert os.listdir(tmp_path / "runs") == ["r"]
