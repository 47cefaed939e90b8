"""Executors: where candidates are trained."""

from __future__ import annotations

import os
from pathlib import Path

from facenas.config import ExecutionConfig
from facenas.execution.base import Executor, OnEpoch
from facenas.execution.processes import ProcessExecutor
from facenas.execution.serial import SerialExecutor

__all__ = [
    "Executor",
    "OnEpoch",
    "ProcessExecutor",
    "SerialExecutor",
    "build_executor",
    "core_count",
]


def build_executor(config: ExecutionConfig, data_folder: Path, on_epoch: OnEpoch) -> Executor:
    """The executor that `config` names, for trials on the image set prepared in `data_folder`."""
    if config.executor == "serial":
        return SerialExecutor(data_folder, on_epoch)
    return ProcessExecutor(data_folder, config.workers or core_count(), on_epoch)


def core_count() -> int:
    """Cores this process may use: fewer than the machine has in a container or under a batch system."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
