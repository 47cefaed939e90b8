"""Executors: where candidates are trained."""

from __future__ import annotations

from pathlib import Path

from facenas.device import core_count
from facenas.execution.base import Executor, OnEpoch
from facenas.execution.config import ExecutionConfig
from facenas.execution.processes import ProcessExecutor
from facenas.execution.serial import SerialExecutor

__all__ = [
    "Executor",
    "OnEpoch",
    "ProcessExecutor",
    "SerialExecutor",
    "build_executor",
]


def build_executor(config: ExecutionConfig, data_folder: Path, on_epoch: OnEpoch) -> Executor:
    """The executor that `config` names, for trials on the image set prepared in `data_folder`."""
    if config.executor == "serial":
        return SerialExecutor(data_folder, on_epoch)
    return ProcessExecutor(data_folder, config.workers or core_count(), on_epoch)
