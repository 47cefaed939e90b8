"""Executors and evaluators: where candidates are judged, and how."""

from __future__ import annotations

from typing import Any

from facenas.device import card_memory
from facenas.execution.base import (
    EXECUTORS,
    Evaluator,
    ExecutionConfig,
    Executor,
    OnEpoch,
    TrialSpec,
    run_trial,
)
from facenas.execution.evaluators import FunctionEvaluator, SupernetPath, SupernetRef, TrainAlone
from facenas.execution.gpu import GpuExecutor, cards
from facenas.execution.processes import ProcessExecutor, check_main, default_workers
from facenas.execution.ray import RayExecutor, check_ray
from facenas.execution.serial import SerialExecutor

__all__ = [
    "EXECUTORS",
    "Evaluator",
    "ExecutionConfig",
    "Executor",
    "FunctionEvaluator",
    "GpuExecutor",
    "OnEpoch",
    "ProcessExecutor",
    "RayExecutor",
    "SerialExecutor",
    "SupernetPath",
    "SupernetRef",
    "TrainAlone",
    "TrialSpec",
    "build_executor",
    "default_workers",
    "run_trial",
]


def build_executor(
    config: ExecutionConfig, evaluator: Evaluator, on_epoch: OnEpoch, import_main: bool = False
) -> Executor:
    """The executor that `config` names; `import_main` as `Executor` tells.

    None is named: `gpu` where there is a card and the evaluator may share a process, else `process`.
    """
    on_cards = evaluator.shares_process and bool(card_memory())
    build: Any = EXECUTORS.get(config.executor or ("gpu" if on_cards else "process"))
    more = {name: getattr(config, name) for name in getattr(build, "takes", ())}
    executor: Executor = build(
        evaluator, on_epoch=on_epoch, workers=config.workers, import_main=import_main, **more
    )
    return executor


def check_execution(config: ExecutionConfig, import_main: bool) -> None:
    """Raises UserError when the executor that `config` names cannot run here: before a run is made."""
    if config.executor == "gpu":
        cards()
    if config.executor == "ray":
        check_ray(config.address)
    if import_main and config.executor in (None, "gpu", "process"):
        check_main()
