"""What only worker processes can do: die."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from facenas.errors import SearchStoppedError
from facenas.execution import Evaluator, ProcessExecutor, TrialSpec
from facenas.execution.worker import Place
from facenas.spaces import PlainArchitecture
from facenas.strategies import Budget, Candidate, TrialResult


class Killer:
    """Kills every worker whenever an epoch ends, as often as it may."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.executor: ProcessExecutor | None = None

    def __call__(self, key, metrics) -> None:
        if self.times:
            self.times -= 1
            for pid in self.executor.worker_pids():
                os.kill(pid, signal.SIGKILL)


def test_a_dead_worker_is_replaced_and_its_trial_retried(make_evaluator, make_spec):
    killer = Killer(1)
    executor = killer.executor = ProcessExecutor(make_evaluator(), 1, killer)
    before = executor.worker_pids()
    executor.submit(make_spec(epochs=20))
    (result,) = executor.wait()
    executor.close()
    assert result.status == "ok"
    assert executor.worker_pids() != before


def test_a_worker_that_dies_again_is_no_fault_of_its_candidate(make_evaluator, make_spec):
    """A killed worker may be a machine without memory: nothing is written down as accuracy 0."""
    killer = Killer(2)
    executor = killer.executor = ProcessExecutor(make_evaluator(), 1, killer)
    executor.submit(make_spec(epochs=20))
    with pytest.raises(SearchStoppedError, match=r"died 2 times \(exit code -9\).*resume the run"):
        executor.wait()
    executor.close()


@dataclass
class Stopwatch(Evaluator):
    """Writes down when it works and when it has asked for quiet."""

    log: Path

    def identity(self, candidate):
        return {}

    def __call__(self, candidate, seed, on_epoch, stop):
        if candidate.reason == "works":
            for _ in range(40):
                stop()
                self._write("work", time.monotonic(), time.monotonic())
                time.sleep(0.03)
            return TrialResult(accuracy=2.0)
        while candidate.reason == "measures" and not self.log.exists():
            time.sleep(0.01)  # until the other is under way
        on_epoch({"epoch": 1})
        with self.quiet():
            started = time.monotonic()
            time.sleep(0.3)
            self._write("quiet", started, time.monotonic())
        return TrialResult(accuracy=1.0)

    def _write(self, *words):
        with self.log.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")


def stopwatch_lines(tmp_path, reasons, places, on_epoch=lambda *_: None):
    """What trials of these reasons write: (kind, from, to)."""
    executor = ProcessExecutor(Stopwatch(tmp_path / "log"), None, on_epoch, places=places)
    arch = PlainArchitecture.uniform(3, 4, 1, 10)
    for reason in reasons:
        executor.submit(TrialSpec(Candidate(arch, Budget(1), "p", reason), {"reason": reason}))
    while executor.wait():
        pass
    executor.close()
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    return [(kind, float(start), float(end)) for kind, start, end in lines]


@pytest.mark.parametrize("places", [[Place(), Place()], [Place(slots=2)]], ids=["processes", "slots"])
def test_nobody_works_while_a_clock_is_looked_at(tmp_path, places):
    """Latency depends on what else runs: the other workers stand still, and go on afterwards."""
    lines = stopwatch_lines(tmp_path, ["works", "measures"], places)
    ((start, end),) = [(start, end) for kind, start, end in lines if kind == "quiet"]
    worked = [start for kind, start, _ in lines if kind == "work"]
    assert len(worked) == 40
    assert not [moment for moment in worked if start < moment < end]
    assert min(worked) < start
    assert max(worked) > end


def test_two_who_want_to_look_at_the_clock_at_once_take_turns(tmp_path):
    """Each would stop the other, and nobody would be left to let them go on."""
    heard = []

    def until_both_have_asked(key, metrics):
        heard.append(key)
        if len(heard) == 1:
            time.sleep(1)

    places = [Place(), Place(slots=2)]
    lines = stopwatch_lines(tmp_path, ["first", "second", "third"], places, until_both_have_asked)
    turns = sorted((start, end) for _, start, end in lines)
    assert len(turns) == 3
    assert all(end <= start for (_, end), (start, _) in pairwise(turns))


def test_workers_have_one_thread_and_share_the_pixels(make_evaluator, make_spec):
    seen = {}

    def look(key, metrics) -> None:
        if metrics["epoch"] > 5:
            return  # the trial may be over before the last epochs are heard of
        for pid in executor.worker_pids():
            maps = psutil.Process(pid).memory_maps(grouped=False)
            pixels = [m for m in maps if m.path.endswith("train_images.npy")]
            seen[pid] = sum(m.private_dirty for m in pixels), len(pixels)

    executor = ProcessExecutor(make_evaluator(), 1, look)
    executor.submit(make_spec(epochs=60))
    (result,) = executor.wait()
    executor.close()
    assert result.threads == 1
    assert list(seen.values()) == [(0, 1)]  # mapped once, not a page copied


def test_workers_leave_when_their_driver_is_killed(tmp_path):
    import subprocess
    import sys
    import time

    code = (
        "from facenas.execution import FunctionEvaluator, ProcessExecutor; import time\n"
        "if __name__ == '__main__':\n"
        "    e = ProcessExecutor(FunctionEvaluator(len), 2)\n"
        "    print(*e.worker_pids(), flush=True); time.sleep(600)\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in driver.stdout.readline().split()]
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)
