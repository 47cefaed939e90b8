"""Several trials on a card: each on a stream of its own, the same results, and what memory and errors do.

pytest -m gpu tests/gpu
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from facenas.device import card_memory
from facenas.execution import Evaluator, GpuExecutor, TrialSpec
from facenas.spaces import PlainArchitecture
from facenas.strategies import Budget, Candidate, TrialResult

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]


@dataclass
class Job(Evaluator):
    """Two of a kind that need the card: `hungry` for most of its memory, `breaks` to break its context once."""

    log: Path

    def identity(self, candidate):
        return {}

    def __call__(self, candidate, seed, on_epoch, stop):
        with self.log.open("a") as file:
            file.write(candidate.reason + "\n")
        while len(self.log.read_text().splitlines()) < 2:  # until both are at work
            stop()
            time.sleep(0.01)
        if candidate.reason.startswith("hungry"):
            held = torch.empty(int(0.6 * card_memory_in_all()), dtype=torch.uint8, device="cuda").fill_(1)
            time.sleep(1)  # the other asks for as much meanwhile
            del held
        elif len(self.log.read_text().splitlines()) == 2:
            torch.zeros(2, device="cuda")[torch.tensor([5], device="cuda")].sum().item()
        stream = torch.cuda.current_stream()
        own = stream != torch.cuda.default_stream()
        return TrialResult(accuracy=50.0, values={"own stream": float(own), "stream": float(stream.stream_id)})


def card_memory_in_all():
    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory


def run_jobs(log, *reasons):
    executor = GpuExecutor(Job(log), 2)
    arch = PlainArchitecture.uniform(3, 4, 1, 10)
    for reason in reasons:
        executor.submit(TrialSpec(Candidate(arch, Budget(1), "p", reason), {"reason": reason}))
    return all_results(executor)


def all_results(executor):
    found = []
    try:
        while results := executor.wait():
            found += results
        return found
    finally:
        executor.close()


def test_the_driver_tells_what_torch_tells():
    free, total = torch.cuda.mem_get_info(0)
    told = card_memory()
    assert len(told) == torch.cuda.device_count()
    assert abs(told[0] - free) < 0.05 * total


@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="two slots of one card")
def test_out_of_memory_beside_others_is_tried_again_alone(tmp_path):
    found = run_jobs(tmp_path / "log", "hungry", "hungry too")
    assert [result.status for result in found] == ["ok", "ok"]
    assert len((tmp_path / "log").read_text().splitlines()) == 3
    assert all(result.values["own stream"] for result in found)


def test_a_broken_context_is_replaced_and_its_trials_tried_again(tmp_path):
    found = run_jobs(tmp_path / "log", "breaks", "breaks too")
    assert [result.status for result in found] == ["ok", "ok"]


def test_two_slots_find_what_one_finds(make_evaluator, make_spec):
    specs = [make_spec(width, epochs=3) for width in (4, 6, 8, 10)]
    losses = []
    for workers in (1, 2):
        executor = GpuExecutor(make_evaluator(), workers)
        for spec in specs:
            executor.submit(spec)
        found = {result.key: result for result in all_results(executor)}
        losses.append([epoch["train_loss"] for spec in specs for epoch in found[spec.key].history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
