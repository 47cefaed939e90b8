"""Run folders of faces as searches and trainings leave them, made by hand, for the tests of the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from report_run_folders import make_run, trial

from facenas.spaces import IRArchitecture

FOUND = (
    IRArchitecture.uniform(6, (1, 1, 2, 1), 64)
    .with_operation(2, 0)
    .with_operation(4, 0)
    .with_kernel(3, 5)
)
SETTINGS = {
    "space": {"kind": "ir"},
    "recipe": {"kind": "faces"},
    "data": {"validation_fraction": 0.05},
}
SOURCE = "zip celeba_299ids_112x112.zip"
HEAD = 64 * 284


def face_search() -> list[dict[str, Any]]:
    """Six trials, all phases."""
    at = IRArchitecture.uniform
    swapped = at(6, (1, 1, 2, 1), 64).with_operation(2, 0)
    trials = [
        trial(0, "depth", at(8, (1, 1, 1, 1), 64), 54.0, decision="best"),
        trial(1, "depth", at(8, (1, 1, 2, 1), 64), 57.0, decision="best"),
        trial(2, "width", at(6, (1, 1, 2, 1), 64), 57.0, decision="best"),
        trial(3, "ops", at(6, (1, 1, 2, 1), 64), 55.0, decision="baseline"),
        trial(4, "ops", swapped, 56.0, decision="kept"),
        trial(5, "kernels", swapped.with_kernel(0, 5), 53.0, decision="undone"),
    ]
    return [line | {"correct": round(3 * line["accuracy"]), "validated": 300} for line in trials]


def make_face_run(
    run: Path, trials: list[dict[str, Any]], source: str = SOURCE, **search: Any
) -> Path:
    """A run folder whose search is under way."""
    make_run(run, trials, SETTINGS | {"search": search})
    about = yaml.safe_load((run / "run.yaml").read_text())
    facts = {"name": "celeba", "source": source, "train_images": 6289, "identities": 299}
    about["data"] = facts | {"image_size": 112, "in_channels": 3}
    (run / "run.yaml").write_text(yaml.safe_dump(about))
    return run


def finish_face_search(run: Path, arch: IRArchitecture = FOUND) -> None:
    """Adds `best.json`."""
    counts = {"parameters": arch.count_parameters(), "macs": arch.count_macs()}
    best = {"architecture": arch.to_json(), "accuracy": 56.0, "workers": 1, "search_seconds": 50.0}
    (run / "best.json").write_text(json.dumps(best | counts))


def train_faces(run: Path) -> None:
    """Adds `metrics.jsonl`: epoch 2 of 3 is the best."""
    lines = []
    for epoch, accuracy in enumerate((55.0, 62.5, 60.0), start=1):
        metrics = {"train_loss": 40.0 / epoch, "train_accuracy": 2.0 * epoch}
        lines.append({"trial": "final", "epoch": epoch, **metrics, "accuracy": accuracy})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def finish_face_training(run: Path, identities: str, pairs: int = 300) -> None:
    """Adds `metrics.jsonl` and `train.json`, verified on `identities`: "test" or "validation"."""
    train_faces(run)
    verification = {
        "identities": identities,
        "pairs": pairs,
        "accuracy": 62.5,
        "std": 3.25,
        "tar_at_far": {"0.1": 40.0, "0.01": 12.0, "0.001": 4.0},
        "roc": {
            "far": [0.0, 0.0, 0.01, 0.01, 0.1, 0.1, 1.0],
            "tar": [0.0, 0.04, 0.04, 0.12, 0.12, 0.4, 1.0],
        },
    }
    final = {
        "architecture": FOUND.to_json(),
        "parameters": FOUND.count_parameters(),
        "epochs": 3,
        "train_images": 6289,
        "train_accuracy": 6.0,
        "best_epoch": 2,
        "test_accuracy": 62.5 if identities == "test" else None,
        "head_parameters": HEAD,
        "identities": 284,
        "verification": verification,
        "seconds": 125.0,
        "threads": 1,
        "processes": 1,
        "device": "cpu",
    }
    (run / "train.json").write_text(json.dumps(final))
