"""What only worker processes can do: die."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from facenas.execution import ProcessExecutor


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


@pytest.mark.parametrize(("deaths", "status"), [(1, "ok"), (2, "failed")])
def test_a_dead_worker_is_replaced_and_its_trial_retried_once(digits, make_spec, deaths, status):
    killer = Killer(deaths)
    executor = killer.executor = ProcessExecutor(digits, 1, killer)
    before = executor.worker_pids()
    executor.submit(make_spec(epochs=20))
    (result,) = executor.wait()
    assert result.status == status
    assert executor.worker_pids() != before
    if status == "failed":
        assert result.reason == "the worker process died 2 times (exit code -9)"
    executor.submit(make_spec(width=5))  # it goes on working
    assert executor.wait()[0].status == "ok"
    executor.close()


def test_workers_have_one_thread_and_share_the_pixels(digits, make_spec):
    seen = {}

    def look(key, metrics) -> None:
        if metrics["epoch"] > 5:
            return  # the trial may be over before the last epochs are heard of
        for pid in executor.worker_pids():
            maps = psutil.Process(pid).memory_maps(grouped=False)
            pixels = [m for m in maps if m.path.endswith("train_images.npy")]
            seen[pid] = sum(m.private_dirty for m in pixels), len(pixels)

    executor = ProcessExecutor(digits, 1, look)
    executor.submit(make_spec(epochs=60))
    (result,) = executor.wait()
    executor.close()
    assert result.threads == 1
    assert list(seen.values()) == [(0, 1)]  # mapped once, not a page copied


def test_workers_leave_when_their_driver_is_killed(digits):
    import subprocess
    import sys
    import time

    code = (
        "from pathlib import Path; from facenas.execution import ProcessExecutor; import sys, time\n"
        "if __name__ == '__main__':\n"
        f"    e = ProcessExecutor(Path({str(digits)!r}), 2)\n"
        "    print(*e.worker_pids(), flush=True); time.sleep(600)\n"
    )
    script = digits.parent / "driver.py"
    script.write_text(code)
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in driver.stdout.readline().split()]
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)
