"""What trainings and the list of runs say on a terminal: of faces, verification accuracy."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from facenas.cli.search import print_runs
from facenas.runs.progress import TrainingProgress

METRICS = {"epoch": 1, "lr": 0.1, "train_loss": 41.25, "train_accuracy": 3.0}


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (METRICS, "epoch 1 of 2: loss 41.2500, train 3.00 %"),
        (
            METRICS | {"accuracy": 62.5},
            "epoch 1 of 2: loss 41.2500, train 3.00 %, verification 62.50 %",
        ),
    ],
    ids=["classification", "faces"],
)
def test_an_epoch_in_the_log(metrics: dict[str, float], words: str, caplog: pytest.LogCaptureFixture) -> None:
    progress = TrainingProgress(2)
    with caplog.at_level(logging.INFO, "facenas"):
        progress.on_epoch("final", metrics)
    progress.on_end(None)
    assert caplog.messages == [words]


@pytest.mark.parametrize(
    ("tested", "verified", "shown"),
    [(62.5, None, "62.50"), (62.5, 62.5, "62.50"), (None, 60.0, "60.00 (validation)")],
)
def test_runs_tell_what_their_final_accuracy_is_of(
    tested: float | None,
    verified: float | None,
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    row = {"run": "r", "test_accuracy": tested, "verification_accuracy": verified}
    print_runs([row], Path("runs"))
    last = capsys.readouterr().out.splitlines()[-2]
    assert last.split("│")[-2].strip() == shown
