"""Several trials in one process, and which machines have them. Plain threads stand in for a card's streams."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import facenas
from facenas import device
from facenas.errors import SearchStoppedError, UserError
from facenas.execution import (
    EXECUTORS,
    Evaluator,
    ExecutionConfig,
    FunctionEvaluator,
    GpuExecutor,
    TrialSpec,
    build_executor,
)
from facenas.execution.gpu import Card, cards
from facenas.execution.worker import Place
from facenas.models import plain
from facenas.models.build import build, seeded
from facenas.spaces import PlainArchitecture
from facenas.strategies import Budget, Candidate, TrialResult

_UNDER_WAY: list[str] = []  # in a worker process: the trials of its slots


@dataclass
class Crowd(Evaluator):
    """Trials that write down whether they began alone; a reason says what they cannot stand."""

    log: Path

    def identity(self, candidate):
        return {}

    def __call__(self, candidate, seed, on_epoch, stop):
        does = candidate.reason
        _UNDER_WAY.append(does)
        try:
            self._write(f"{does} {len(_UNDER_WAY)}")
            self._wait(stop, 0 if does == "always breaks" else 2)  # until both slots are at work
            if does == "large" and len(_UNDER_WAY) > 1:
                raise MemoryError
            if does == "always breaks" or (does == "breaks" and len(self.lines()) == 2):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            on_epoch({"epoch": 1})
            self._wait(stop, 3 if does.startswith("killed") else 0)  # 3: until it is tried again
        finally:
            _UNDER_WAY.remove(does)
        return TrialResult(accuracy=50.0)

    def _wait(self, stop, lines):
        while len(self.lines()) < lines:
            stop()
            time.sleep(0.01)

    def _write(self, line):
        with self.log.open("a") as file:
            file.write(line + "\n")

    def lines(self):
        return self.log.read_text().splitlines()


class Fragile(Place):
    """Like a card whose context is broken after an error."""

    def is_broken(self):
        return True


def run_crowd(evaluator, reasons, place, on_epoch=lambda *_: None):
    """Accuracies of trials of these reasons, in one process of two slots."""
    executor = GpuExecutor(evaluator, None, lambda *told: on_epoch(executor, *told), places=[place])
    assert executor.slots == place.slots
    arch = PlainArchitecture.uniform(3, 4, 1, 10)
    for reason in reasons:
        executor.submit(TrialSpec(Candidate(arch, Budget(1), "p", reason), {"reason": reason}))
    try:
        found = []
        while results := executor.wait():
            found += results
        return [result.accuracy for result in found]
    finally:
        executor.close()


def test_a_killed_process_loses_no_trial_and_each_is_tried_again_alone(tmp_path):
    killed, crowd = set(), Crowd(tmp_path / "log")

    def kill(executor, key, metrics):
        killed.add(key)
        if len(killed) == 2:  # both are under way
            killed.add("once")
            os.kill(*executor.worker_pids(), signal.SIGKILL)

    assert run_crowd(crowd, ["killed", "killed too"], Place(2), kill) == [50, 50]
    assert crowd.lines() == ["killed 1", "killed too 2", "killed 1", "killed too 1"]


def test_out_of_memory_beside_others_is_tried_again_alone(tmp_path):
    crowd = Crowd(tmp_path / "log")
    assert run_crowd(crowd, ["a", "large"], Place(2)) == [50, 50]
    assert crowd.lines() == ["a 1", "large 2", "large 1"]


def test_an_error_that_breaks_the_card_is_nobodys_result(tmp_path):
    """After an illegal access every call fails: the process is replaced, all its trials are tried again."""
    crowd = Crowd(tmp_path / "log")
    assert run_crowd(crowd, ["killed", "breaks"], Fragile(2)) == [50, 50]
    assert crowd.lines() == ["killed 1", "breaks 2", "killed 1", "breaks 1"]
    with pytest.raises(SearchStoppedError, match=r"died 2 times \(RuntimeError: CUDA error: an illegal memory"):
        run_crowd(crowd, ["always breaks"], Fragile(2))


def test_a_place_where_nothing_can_be_computed_says_so(tmp_path):
    """A card that the driver has, but torch does not."""
    with pytest.raises(UserError, match="the driver finds a GPU, but torch cannot use it"):
        run_crowd(Crowd(tmp_path / "log"), ["a"], Card(2, ""))


@pytest.fixture
def driver(monkeypatch):
    """Stands in for the libraries of a driver that has two cards; what a test changes, it answers."""
    state = SimpleNamespace(total=80 * 2**30, free=[70 * 2**30, 9 * 2**30], managed=True, cuda="13.0")

    class Cuda:
        def cuInit(self, flags):  # noqa: N802
            return 0

        def cuDeviceGetCount(self, count):  # noqa: N802
            count._obj.value = len(state.free)
            return 0

        def cuDeviceGet(self, card, number):  # noqa: N802
            card._obj.value = number
            return 0

        def cuDeviceTotalMem_v2(self, total, card):  # noqa: N802
            total._obj.value = state.total
            return 0

        def cuDeviceGetUuid(self, name, card):  # noqa: N802
            name[15] = card.value
            return 0

    class Management:
        def nvmlInit_v2(self):  # noqa: N802
            return 0 if state.managed else 9

        def nvmlDeviceGetHandleByUUID(self, name, handle):  # noqa: N802
            assert name.startswith(b"GPU-00000000-0000-0000-0000-00000000000")
            handle._obj.value = int(name[-1:]) + 1
            return 0

        def nvmlDeviceGetMemoryInfo(self, handle, memory):  # noqa: N802
            memory[:] = [state.total, state.free[handle.value - 1], 0]
            return 0

    libraries = {"libcuda.so.1": Cuda(), "libnvidia-ml.so.1": Management()}
    monkeypatch.setattr(ctypes, "CDLL", libraries.__getitem__)
    monkeypatch.setattr(device.runpy, "run_path", lambda path: {"cuda": state.cuda})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return state


def test_cards_and_their_slots(driver, monkeypatch):
    assert device.card_memory() == driver.free
    assert cards() == [Card(4, "0"), Card(2, "1")]  # a slot for every 4 GiB that are free, at most 4
    assert cards(5) == [Card(3, "0"), Card(2, "1")]
    assert cards(1) == [Card(1, "0")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5e")
    assert cards(2) == [Card(1, "3"), Card(1, "GPU-5e")]
    driver.managed = False
    assert device.card_memory() == [driver.total] * 2
    driver.free = [2**30]
    assert cards() == [Card(4)]
    driver.cuda = None  # of a torch for CPUs alone
    assert device.card_memory() == []


def test_trainings_go_to_a_card_and_functions_to_processes(driver, monkeypatch, make_evaluator):
    monkeypatch.setattr(EXECUTORS, "get", lambda name: lambda *_, **__: name)

    def chosen(evaluator, **config):
        return build_executor(ExecutionConfig.model_construct(**config), evaluator, print)

    assert chosen(make_evaluator()) == "gpu"
    assert chosen(FunctionEvaluator(len)) == "process"
    assert chosen(FunctionEvaluator(len), executor="gpu") == "gpu"
    assert chosen(make_evaluator(), executor="process") == "process"
    driver.free = []
    assert chosen(make_evaluator()) == "process"


def test_a_search_on_a_card_that_is_not_there_is_refused_before_its_run_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "card_memory", list)
    with pytest.raises(UserError, match="executor gpu: there is no NVIDIA card here"):
        facenas.search("demo-digits", executor="gpu", runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_networks_that_are_built_at_the_same_time_have_the_weights_of_their_seeds():
    arch = PlainArchitecture.uniform(3, 4, 1, 10)
    alone = build(arch, 1).state_dict()
    other_draws, drawn = threading.Event(), threading.Event()

    def draw_beside():
        with seeded(2):
            other_draws.set()
            drawn.wait(0.2)

    thread = threading.Thread(target=draw_beside)
    with seeded(1):
        thread.start()
        other_draws.wait(0.2)  # without a lock the other thread is within its own seed now
        beside = plain.build_module(arch)
        drawn.set()
    thread.join()
    assert all(bool((alone[name] == value).all()) for name, value in beside.state_dict().items())
