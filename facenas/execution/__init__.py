"""Executors and evaluators: where candidates are judged, and how."""

from __future__ import annotations

from typing import Any

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
from facenas.execution.processes import ProcessExecutor, default_workers
from facenas.execution.serial import SerialExecutor

__all__ = [
    "EXECUTORS",
    "Evaluator",
    "ExecutionConfig",
    "Executor",
    "FunctionEvaluator",
    "OnEpoch",
    "ProcessExecutor",
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
    """The executor that `config` names; `import_main` as `Executor` tells."""
    build: Any = EXECUTORS.get(config.executor)
    executor: Executor = build(evaluator, on_epoch=on_epoch, workers=config.workers, import_main=import_main)
    return executor
