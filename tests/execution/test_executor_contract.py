"""Every executor passes the contract that `facenas.testing` publishes, and trains the same bits."""

from __future__ import annotations

import pytest

from facenas.execution import GpuExecutor, ProcessExecutor, SerialExecutor, run_trial
from facenas.execution.worker import Place
from facenas.testing import check_executor

BUILDERS = {
    "serial": SerialExecutor,
    "process-1": lambda evaluator, on_epoch=lambda *_: None: ProcessExecutor(evaluator, 1, on_epoch),
    "process-2": lambda evaluator, on_epoch=lambda *_: None: ProcessExecutor(evaluator, 2, on_epoch),
    # Plain threads stand in for streams.
    "gpu-2": lambda evaluator, on_epoch=lambda *_: None: GpuExecutor(
        evaluator, None, on_epoch, places=[Place(slots=2)]
    ),
}


@pytest.fixture(params=BUILDERS)
def build(request):
    return BUILDERS[request.param]


def test_the_contract(build):
    check_executor(build)


@pytest.mark.parametrize("build", ["serial", "process-2", "gpu-2"], indirect=True)
def test_a_training_gives_the_same_bits_everywhere(build, make_spec, make_evaluator):
    from facenas.device import threads

    executor = build(make_evaluator())
    found, specs = {}, [make_spec(epochs=2)]
    if isinstance(executor, GpuExecutor):  # side by side in one process
        specs.insert(0, make_spec(width=6, epochs=2))
    for spec in specs:
        executor.submit(spec)
    while results := executor.wait():
        found |= {result.key: result for result in results}
    executor.close()
    for spec in specs:
        with threads(1):
            by_hand = run_trial(make_evaluator(), spec)
        assert unclocked(found[spec.key]) == unclocked(by_hand)
    assert by_hand.validated == 143  # a tenth of 1,438 training images, by class
    assert by_hand.images == 2 * 259  # two epochs of a fifth of the rest


def unclocked(result):
    return {**result.to_json(), "seconds": None}


def test_a_loss_that_diverges_is_the_candidates_own_fault(make_spec, make_evaluator):
    failed = run_trial(make_evaluator(lr=1e30), make_spec())
    assert (failed.status, failed.accuracy) == ("failed", 0)
    assert "NonFiniteLossError: the loss became" in failed.reason


@pytest.mark.parametrize(("cards", "workers"), [(0, 16), (1, 4), (2, 8), (8, 16)])
def test_default_workers_are_one_a_core_but_four_a_card_at_most(monkeypatch, cards, workers):
    """Sixteen CUDA contexts on one card would take its memory, and candidates would pay for it."""
    from facenas import device
    from facenas.execution import default_workers

    monkeypatch.setattr(device, "core_count", lambda: 16)
    monkeypatch.setattr(device, "card_memory", lambda: [2**34] * cards)
    assert default_workers() == workers
