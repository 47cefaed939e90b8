"""Small run folders as searches and trainings leave them, written line by line, for the tests of the pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from facenas.spaces import from_json

FACES = {"name": "celeba", "source": "zip celeba.zip", "train_images": 6289, "identities": 299}
FACES |= {"image_size": 112, "in_channels": 3}
DIGITS = {"name": "digits", "source": "scikit-learn", "fingerprint": "f00d", "train_images": 1295}
DIGITS |= {"test_images": 359, "classes": 10, "image_size": 16, "in_channels": 1}
FRONT = {"strategy": "nsga2", "epochs": 2, "objectives": ["macs", "memory"]}
GRAPH = {"kind": "graph", "widths": [8, 16], "max_blocks": 2}


def plain(
    depth: int, width: int, plain_at: tuple[int, ...] = (), five_at: tuple[int, ...] = ()
) -> dict[str, Any]:
    """The JSON of a plain chain, its layers counted from 1."""
    ops = [int(n in plain_at) for n in range(1, depth + 1)]
    kernels = [5 if n in five_at else 3 for n in range(1, depth + 1)]
    genes = {"depth": depth, "width": width, "ops": ops, "kernels": kernels}
    return {"kind": "plain", **genes, "in_channels": 1, "num_classes": 10}


def ir(width: int, stages: list[int], separable: int = 0) -> dict[str, Any]:
    """The JSON of a face network whose last blocks are separable, the very last of 5x5."""
    blocks = sum(stages)
    ops = [1] * (blocks - separable) + [0] * separable
    genes = {"stages": stages, "ops": ops, "kernels": [3] * (blocks - 1) + [5], "embedding": 64}
    more = {"se": True, "project_first": False}
    return {"kind": "ir", "depth": 2 * blocks + 2, "width": width, **genes, **more}


def cells() -> dict[str, Any]:
    """The JSON of a cell network with all that a drawing shows."""

    def block(operation: str, kernel: int, skip: bool = False) -> dict[str, Any]:
        how = {"batch_norm": True, "activation": "relu", "skip": skip}
        return {"operation": operation, "kernel": kernel, **how}

    joined = [[block("conv", 3, True), block("max_pool", 3)], [block("separable", 5)]]
    added = [[block("avg_pool", 3)], [block("identity", 1)]]
    down = {"role": "down", "merge": "concat", "channels": 12, "pipelines": joined}
    up = {"role": "up", "merge": "add", "channels": 6, "pipelines": added}
    return {"kind": "cells", "stem": 8, "cells": [down, up], "in_channels": 1, "num_classes": 10}


def graph(width: int, *stages: list[str], task: str = "classification") -> dict[str, Any]:
    """The JSON of a graph network; every stage is twice as wide as the one before."""
    widths = [width * 2**n for n in range(len(stages))]
    ends = {"in_channels": 3, "outputs": 64} if task == "face" else {"in_channels": 1, "outputs": 10}
    shape = {"first_stride": 1, "expansion": 2, **ends}
    return {"kind": "graph", "task": task, "widths": widths, "stages": list(stages), **shape}


def line(number: int, phase: str, tree: dict[str, Any], accuracy: float, **more: Any) -> dict[str, Any]:
    """A journal line; `decision` and `note` as the current version writes them."""
    counted = {}
    if tree["kind"] in ("plain", "ir", "cells", "graph"):
        arch, size = from_json(tree), 112 if tree["kind"] == "ir" else 16
        counted = {"parameters": arch.count_parameters(), "macs": arch.count_macs(size)}
    values = {"trial": number, "phase": phase, "reason_proposed": "drawn", **tree, "epochs": 2}
    values |= {
        **counted,
        "key": f"{number:064x}",
        "status": "ok",
        "reason": None,
        "accuracy": accuracy,
    }
    values |= {"train_accuracy": accuracy - 2, "correct": round(accuracy * 10), "validated": 1000}
    values |= {
        "seconds": 5.5,
        "threads": 1,
        "decision": "kept",
        "note": "best",
        "speculative": False,
    }
    return values | {"search_seconds": 6.0 * (number + 1)} | more


def macro_micro() -> list[dict[str, Any]]:
    """Eight trials: four phases, a baseline, a speculative one, a failed one; one line is of an old version."""
    found, failed = (
        plain(6, 8, (2,), (5,)),
        {"status": "failed", "reason": "loss is NaN <at> epoch 3"},
    )
    old = line(0, "depth", plain(5, 10), 60.0, epochs=10, decision="go on")
    del old["note"]
    return [
        old,
        line(1, "depth", plain(6, 10), 64.5, epochs=10, speculative=True),
        line(
            2,
            "depth",
            plain(7, 10),
            0.0,
            epochs=10,
            decision="rejected",
            note="drop 1 of 3",
            **failed,
        ),
        line(3, "width", plain(6, 8), 65.0, epochs=10),
        line(4, "ops", plain(6, 8), 30.0, decision="baseline", note="baseline"),
        line(5, "ops", plain(6, 8, (2,)), 33.0, note="kept"),
        line(6, "kernels", found, 35.25, note="kept"),
        line(7, "kernels", plain(6, 8, (2,), (5, 6)), 34.0, decision="rejected", note="undone"),
    ]


def with_supernet() -> list[dict[str, Any]]:
    """Three networks judged by a supernet and trained alone, and two generations judged by it."""
    ranked = [graph(4, [], ["conv3"]), graph(8, ["separable3"], ["avg_pool3"])]
    ranked.append(graph(8, ["conv3"], ["bottleneck3"]))
    bred = [graph(4, [], ["separable3"])]
    bred.append(graph(8, ["conv3", "se_bottleneck5"], ["bottleneck3", "max_pool3"]))
    told = [
        ("ranked by supernet", 0, (50.0, 60.0, 80.0)),
        ("ranked by training", 2, (70.0, 75.0, 72.0)),
    ]
    base, trials = {"decision": "baseline", "note": "ranked"}, list[dict[str, Any]]()
    for phase, epochs, accuracies in told:
        for tree, accuracy in zip(ranked, accuracies, strict=True):
            trials.append(line(len(trials), phase, tree, accuracy, epochs=epochs, **base))
    trials.append(line(6, "generation 1", ranked[2], 80.0, epochs=0, note="on the front"))
    trials.append(line(7, "generation 1", ranked[1], 60.0, epochs=0, note="on the front"))
    trials.append(line(8, "generation 2", bred[0], 55.0, epochs=0, note="on the front"))
    trials.append(line(9, "generation 2", bred[1], 79.0, epochs=0, decision="rejected", note="dominated"))
    return trials


def make_run(run: Path, trials: list[dict[str, Any]], data: dict[str, Any] = DIGITS, **groups: Any) -> Path:
    """A run folder whose search is under way; `groups` are settings."""
    run.mkdir(parents=True)
    about = {
        "name": run.name,
        "created": "2025-03-01T12:00:00+00:00",
        "command": f"facenas search --preset tiny --run {run.name} --runs-dir elsewhere",
        "config": {
            "seed": 3,
            "search": {"strategy": "macro_micro"},
            "space": {"kind": "plain"},
            **groups,
        },
        "data": data,
        "versions": {"facenas": "0.1.0"},
        "machine": {"platform": "Linux", "cores": 8},
    }
    (run / "run.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    write_lines(run / "trials.jsonl", trials)
    return run


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")


def finish_search(run: Path, tree: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Adds `best.json` and returns it."""
    arch = from_json(tree)
    size = 112 if tree["kind"] == "ir" else 16
    best = {
        "architecture": tree,
        "parameters": arch.count_parameters(),
        "macs": arch.count_macs(size),
    }
    best |= {"accuracy": 35.25, "search_seconds": 20935.0, "workers": 8, **more}
    (run / "best.json").write_text(json.dumps(best))
    return best


def finish_front(
    run: Path, trials: list[dict[str, Any]], ids: list[int], objectives: list[str]
) -> dict[str, Any]:
    """Adds `best.json` with these trials as its front, the lowest error first."""
    front = []
    for trial in (trials[number] for number in ids):
        tree = {key: trial[key] for key in graph(4, [])}
        costs = {**trial, "memory": from_json(tree).count_memory(16)}
        values = {name: float(costs[name]) for name in objectives}
        values = {"error": 100 - trial["accuracy"], **values, "architecture": tree}
        front.append({"id": trial["trial"], "accuracy": trial["accuracy"], **values})
    told = {"objectives": ["error", *objectives], "front": front}
    return finish_search(run, front[0]["architecture"], **told)


def finish_training(run: Path, tree: dict[str, Any], **more: Any) -> None:
    """Adds `train.json` and `metrics.jsonl`."""
    final = {"architecture": tree, "epochs": 3, "test_accuracy": 71.25, "train_images": 1295}
    final |= {"test_correct": 256, "test_images": 359, "seconds": 125.0, "threads": 2, **more}
    (run / "train.json").write_text(json.dumps(final))
    lines = [{"trial": 0, "epoch": 1, "train_loss": 9.0}]
    for epoch, loss in enumerate((2.0, 1.5, 1.25), start=1):
        lines.append({"trial": "final", "epoch": epoch, "train_loss": loss, "train_accuracy": 20.0 * epoch})
    write_lines(run / "metrics.jsonl", lines)
