"""Every executor passes the contract that `facenas.testing` publishes, and trains the same bits."""

from __future__ import annotations

import pytest

from facenas.execution import ProcessExecutor, SerialExecutor, run_trial
from facenas.testing import check_executor

BUILDERS = {
    "serial": SerialExecutor,
    "process-1": lambda evaluator, on_epoch=lambda *_: None: ProcessExecutor(evaluator, 1, on_epoch),
    "process-2": lambda evaluator, on_epoch=lambda *_: None: ProcessExecutor(evaluator, 2, on_epoch),
}


@pytest.fixture(params=BUILDERS)
def build(request):
    return BUILDERS[request.param]


def test_the_contract(build):
    check_executor(build)


def test_a_training_gives_the_same_bits_everywhere(build, make_spec, make_evaluator):
    from facenas.device import threads

    spec = make_spec(epochs=2)
    executor = build(make_evaluator())
    executor.submit(spec)
    (result,) = executor.wait()
    executor.close()
    with threads(1):
        by_hand = run_trial(make_evaluator(), spec)
    assert unclocked(result) == unclocked(by_hand)
    assert by_hand.validated == 143  # a tenth of 1,438 training images, by class
    assert by_hand.images == 2 * 259  # two epochs of a fifth of the rest


def unclocked(result):
    return {**result.to_json(), "seconds": None}


def test_a_loss_that_diverges_is_the_candidates_own_fault(build, make_spec, make_evaluator):
    executor = build(make_evaluator(lr=1e30))
    executor.submit(make_spec())
    (failed,) = executor.wait()
    executor.close()
    assert (failed.status, failed.accuracy) == ("failed", 0)
    assert "NonFiniteLossError: the loss became" in failed.reason


@pytest.mark.parametrize(("cards", "workers"), [(0, 16), (1, 4), (2, 8), (8, 16)])
def test_default_workers_are_one_a_core_but_four_a_card_at_most(monkeypatch, cards, workers):
    """Sixteen CUDA contexts on one card would take its memory, and candidates would pay for it."""
    import torch

    from facenas import device
    from facenas.execution import default_workers

    monkeypatch.setattr(device, "core_count", lambda: 16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert default_workers() == workers
