"""Devices by name, what the hardware computes in, and threads that are given back."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
import torch

from facenas.device import core_count, named_device, pick_device, threads
from facenas.errors import UserError


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs as torch tells of them: number 0 computes in bf16, number 1 (a T4) emulates it."""
    current = [0]

    @contextmanager
    def device(index):
        before, current[0] = current[0], index
        yield
        current[0] = before

    def is_bf16_supported(including_emulation=True):
        return including_emulation or current[0] == 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)


def test_bf16_is_asked_of_the_workers_own_gpu_and_emulation_does_not_count(gpus):
    found = [pick_device(worker) for worker in range(3)]
    assert [str(device.torch_device) for device in found] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [device.bf16 for device in found] == [True, False, True]
    assert not named_device("cuda:1").bf16
    with torch.cuda.device(1):  # as under torchrun, where each process has set its own
        assert str(named_device(None).torch_device) == "cuda:1"
    with pytest.raises(UserError, match="device cuda:2: torch finds 2 GPUs here"):
        named_device("cuda:2")


def test_threads_are_given_back_and_the_environment_is_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = torch.get_num_threads()
    with suppress(RuntimeError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        assert os.environ["OMP_NUM_THREADS"] == "7"
        raise RuntimeError
    assert torch.get_num_threads() == before
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_counting_cores_does_not_import_torch():
    code = "import sys; from facenas.device import core_count; print(core_count(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{core_count()} False\n"
