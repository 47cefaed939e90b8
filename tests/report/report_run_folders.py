"""Run folders as a search leaves them, made by hand, for the tests of the page."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from facenas.runs.config import RunConfig
from facenas.spaces import Architecture, PlainArchitecture

LOG = Path(__file__).parents[3] / "shared" / "search_logs" / "cifar10-tiny.json"
START = datetime(2025, 3, 1, 12, 0, 0)
FOUND = PlainArchitecture.uniform(6, 8, 3, 10).with_operation(1, 1).with_kernel(4, 5)


def trial(
    number: int, phase: str, arch: Architecture, accuracy: float, **more: Any
) -> dict[str, Any]:
    """A journal line."""
    finished = START + timedelta(seconds=60 * (number + 1))
    values = {
        "trial": number,
        "key": f"{number:064x}",
        "phase": phase,
        **arch.to_json(),
        "epochs": 10 if phase in ("depth", "width") else 2,
        "data_fraction": 1.0,
        "parameters": arch.count_parameters(),
        "params_millions": arch.count_parameters() / 1e6,
        "macs": arch.count_macs(32 if arch.kind == "plain" else 112),
        "train_accuracy": accuracy - 2,
        "accuracy": accuracy,
        "correct": round(accuracy * 50),
        "validated": 5000,
        "decision": "go on",
        "status": "ok",
        "reason": None,
        "seconds": 55.5,
        "finished": finished.isoformat(),
        "search_seconds": 60.0 * (number + 1),
        "threads": 1,
        "speculative": False,
        "history": [],
    }
    return values | more


def small_search() -> list[dict[str, Any]]:
    """Eight trials: every phase, a speculative one and a failed one."""
    at = PlainArchitecture.uniform
    found = at(6, 8, 3, 10).with_operation(1, 1).with_kernel(4, 5)
    return [
        trial(0, "depth", at(5, 10, 3, 10), 60.0, decision="best"),
        trial(1, "depth", at(6, 10, 3, 10), 64.5, decision="best", speculative=True),
        trial(
            2, "depth", at(7, 10, 3, 10), 0.0, status="failed", reason="loss is NaN <at> epoch 3"
        ),
        trial(3, "width", at(6, 8, 3, 10), 65.0, decision="best"),
        trial(4, "ops", at(6, 8, 3, 10), 30.0, decision="best"),
        trial(5, "ops", at(6, 8, 3, 10).with_operation(1, 1), 33.0, decision="kept"),
        trial(6, "kernels", found, 35.25, decision="kept"),
        trial(7, "kernels", found.with_kernel(5, 5), 34.0, decision="undone"),
    ]


def recorded_search() -> list[dict[str, Any]]:
    """The published search on CIFAR-10 as journal lines."""
    if not LOG.exists():
        pytest.skip("needs the recorded searches, which lie beside the checkout")
    log = json.loads(LOG.read_text())
    lines = []
    for number, t in enumerate(log["trials"]):
        arch = PlainArchitecture.from_json(t | {"in_channels": 3, "num_classes": 10})
        more = {"epochs": t["epochs"], "train_accuracy": t["train_accuracy"]}
        lines.append(trial(number, t["phase"], arch, t["accuracy"], **more))
    return lines


def make_run(run: Path, trials: list[dict[str, Any]], config: dict[str, Any] | None = None) -> Path:
    """A run folder whose search is under way."""
    run.mkdir()
    about = {
        "name": run.name,
        "created": START.isoformat(),
        "command": f"facenas search --preset tiny --run {run.name}",
        "config": RunConfig.model_validate(config or {}).model_dump(mode="json"),
        "data": {"name": "cifar10", "train_images": 50000, "image_size": 32, "classes": 10},
        "versions": {"facenas": "0.1.0", "python": "3.11.9"},
        "git_commit": None,
        "machine": {"platform": "Linux", "cores": 8},
    }
    (run / "run.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    (run / "trials.jsonl").write_text("".join(json.dumps(t) + "\n" for t in trials))
    return run


def finish_search(run: Path, arch: PlainArchitecture) -> None:
    """Adds `best.json`."""
    best = {
        "architecture": arch.to_json(),
        "parameters": arch.count_parameters(),
        "macs": arch.count_macs(32),
        "accuracy": 35.25,
        "search_seconds": 20935.0,
        "workers": 8,
    }
    (run / "best.json").write_text(json.dumps(best))


def finish_training(run: Path, arch: PlainArchitecture) -> None:
    """Adds `train.json` and `metrics.jsonl`, one loss of which diverged."""
    final = {"architecture": arch.to_json(), "epochs": 3, "test_accuracy": 71.25}
    final |= {"test_correct": 7125, "test_images": 10000, "seconds": 125.0, "threads": 2}
    (run / "train.json").write_text(json.dumps(final))
    lines: list[dict[str, Any]] = [{"trial": "00ff", "epoch": 1, "train_loss": 9.0}]
    for epoch, loss in enumerate((2.0, 1.5, 1.25), start=1):
        lines.append({"trial": "final", "epoch": epoch, "train_loss": loss, "train_accuracy": 40.0})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
