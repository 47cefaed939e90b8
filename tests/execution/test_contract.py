"""The contract that every executor must pass."""

from __future__ import annotations

import pytest

from facenas.execution import ProcessExecutor, SerialExecutor
from facenas.execution.trial import run_trial

BUILDERS = {
    "serial": SerialExecutor,
    "process-1": lambda folder, on_epoch=lambda *_: None: ProcessExecutor(folder, 1, on_epoch),
    "process-2": lambda folder, on_epoch=lambda *_: None: ProcessExecutor(folder, 2, on_epoch),
}


@pytest.fixture(params=BUILDERS)
def build(request, digits):
    """Builds the executor under test, and closes it."""
    made = []

    def builder(*arguments):
        made.append(BUILDERS[request.param](digits, *arguments))
        return made[-1]

    yield builder
    for executor in made:
        executor.close()
        executor.close()  # twice is no error


def all_results(executor):
    found = []
    while results := executor.wait():
        found += results
    return {result.key: result for result in found}


def test_trains_queues_cancels_and_reports(build, make_spec, digits):
    epochs = []
    executor = build(lambda key, metrics: epochs.append((key, metrics["epoch"])))
    assert executor.wait() == []
    wanted, other, dropped = make_spec(epochs=2), make_spec(width=5), make_spec(width=6)
    broken = make_spec(lr=1e30)
    for spec in (wanted, other, broken, dropped):
        executor.submit(spec)
    executor.cancel(dropped.key)
    executor.cancel("a key that was never submitted")

    results = all_results(executor)
    assert results.keys() == {wanted.key, other.key, broken.key}
    assert executor.wait() == []
    assert [epoch for key, epoch in epochs if key == wanted.key] == [1, 2]

    failed = results[broken.key]
    assert failed.status == "failed"
    assert failed.accuracy == 0
    assert "NonFiniteLossError: the loss became" in failed.reason

    # The same bits as a trial run by hand: one thread everywhere.
    import torch

    torch.set_num_threads(1)
    by_hand = run_trial(wanted, digits)
    assert unclocked(results[wanted.key]) == unclocked(by_hand)
    assert by_hand.validated == 143  # a tenth of 1,438 training images, by class
    assert by_hand.images == 2 * 259  # two epochs of a fifth of the rest


def unclocked(result):
    return {**result.to_json(), "seconds": None}


def test_cancelling_a_running_trial_frees_the_slot(build, make_spec):
    executor = build()
    long, short = make_spec(width=32, epochs=10_000), make_spec()
    executor.submit(long)
    executor.cancel(long.key)
    executor.submit(short)
    assert all_results(executor).keys() == {short.key}


def test_a_cancelled_trial_can_be_asked_for_again(build, make_spec):
    executor, spec = build(), make_spec()
    executor.submit(spec)
    executor.cancel(spec.key)
    executor.submit(spec)
    assert all_results(executor)[spec.key].status == "ok"
