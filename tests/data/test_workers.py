"""Work by other processes: results and faults in order, none left behind."""

import os
import subprocess
import sys

import psutil
import pytest

from facenas.data.workers import in_order
from facenas.errors import UserError


def jobs(count):
    yield from range(-count, 0)
    raise UserError("the source ends too early")


def test_results_and_faults_come_in_order():
    list(in_order(abs, [1], 2))  # multiprocessing starts a process of its own
    before = set(psutil.Process().children(recursive=True))
    results = in_order(abs, jobs(50), 2)
    assert [next(results) for _ in range(50)] == [(-n, n) for n in range(50, 0, -1)]
    with pytest.raises(UserError, match="ends too early"):
        next(results)
    assert set(psutil.Process().children(recursive=True)) == before


def test_a_process_that_dies_is_told():
    with pytest.raises(UserError, match="a worker process died"):
        list(in_order(os._exit, [1], 2))


def test_no_worker_outlives_a_killed_parent(tmp_path):
    program = (
        "import os, time; from facenas.data.workers import in_order\n"
        "if __name__ == '__main__':\n"
        "    work = in_order(time.sleep, [0, 0, 0, 60, 60, 60, 60, 60], 2)\n"
        "    next(work); print('ready', flush=True); next(work); next(work); next(work)"
    )
    (tmp_path / "main.py").write_text(program)
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py"], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"ready\n"
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers) >= 2
    parent.kill()
    parent.communicate()
    gone, alive = psutil.wait_procs(workers, timeout=20)
    assert gone
    assert not alive
