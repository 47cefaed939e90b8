"""Executors and evaluators: where candidates are judged, and how."""

from __future__ import annotations

from facenas.execution.base import (
    Evaluator,
    ExecutionConfig,
    Executor,
    OnEpoch,
    TrialSpec,
    run_trial,
)
from facenas.execution.evaluators import FunctionEvaluator, SupernetPath, SupernetRef, TrainAlone
from facenas.execution.processes import ProcessExecutor
from facenas.execution.serial import SerialExecutor

__all__ = [
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
    "run_trial",
]

_PER_CARD = 4  # workers of one GPU: each holds a CUDA context and a copy of its network


def build_executor(
    config: ExecutionConfig, evaluator: Evaluator, on_epoch: OnEpoch, import_main: bool = False
) -> Executor:
    """The executor that `config` names; `import_main` as `ProcessExecutor` takes it."""
    if config.executor == "serial":
        return SerialExecutor(evaluator, on_epoch)
    return ProcessExecutor(evaluator, config.workers or default_workers(), on_epoch, import_main)


def default_workers() -> int:
    """One for every core; with GPUs at most 4 a card."""
    import torch

    from facenas.device import core_count

    if torch.cuda.is_available():
        return min(core_count(), _PER_CARD * torch.cuda.device_count())
    return core_count()
