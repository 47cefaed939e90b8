"""Reads tensors out of files from anywhere, without running what such a file may hold."""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from facenas.errors import UserError, first_line
from facenas.files import reading

# Settings and states that Lightning and its users leave in a checkpoint beside the weights.
_HARMLESS = re.compile(
    r"((pytorch_lightning|lightning|lightning_fabric|omegaconf|pathlib)\.|utils\.dotdict$|argparse\.Namespace$)"
)
# Accuracies and losses, which many trainings save as numpy's numbers.
_NUMPY = re.compile(r"numpy\.(dtype|ndarray|dtypes\.\w+|_?core\.multiarray\.(scalar|_reconstruct))$")
_DEEPEST = 4  # mappings within mappings


class _Shell:
    """Stands for a harmless class while a checkpoint is read: its objects become plain mappings."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _Number:
    """Stands for a number or array of numpy's, which is not looked at."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of the one mapping of a torch checkpoint that is a file's own.

    Raises UserError as `read_states` does.
    """
    return read_states(path).get("", {})


def read_states(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of a .safetensors file or torch checkpoint, by name, and by the mapping that they lie in.

    A mapping is called by its place in the file: "" the file's own, "state_dict.", "ema.model.". Raises
    UserError when the file is missing, torn or no checkpoint, or when opening it would run foreign code.
    """
    with reading(path, "fetch it again"):
        try:
            tree = _load(path)
        except UnpicklingError:
            raise UserError(
                f"{path}: is no checkpoint, or one that holds more than weights; save its state_dict as "
                "safetensors"
            ) from None
        except (UserError, OSError):
            raise
        except Exception as error:  # a torn file fails in many ways, deep inside torch
            reason = first_line(error)
            raise UserError(f"{path}: is not a whole checkpoint ({reason}); fetch it again") from error
        states = dict(_states(tree, ""))
        for tensors in states.values():
            for name, tensor in tensors.items():
                _check_size(path, name, tensor)
        return states


def _states(tree: Any, place: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if isinstance(tree, dict) and place.count(".") < _DEEPEST:
        named = {key: value for key, value in tree.items() if isinstance(key, str)}
        tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
        if tensors:
            yield place, tensors
        for key, value in named.items():
            yield from _states(value, f"{place}{key}.")


def _check_size(path: Path, name: str, tensor: Tensor) -> None:
    """A tensor may claim to repeat a few bytes a billion times."""
    plain = tensor.layout is torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"{path}: {name} is no plain tensor; save the network's state_dict as safetensors")


def _load(path: Path) -> Any:
    if path.suffix.lower() == ".safetensors":
        return safetensors.torch.load_file(path)
    # Before torch 1.6 it was no .zip: then tensors alone are read.
    zipped = zipfile.is_zipfile(path)
    names = _foreign_names(path) if zipped else []
    shells = [(_Shell, name) for name in names if not _NUMPY.match(name)]
    numbers = [*(name for name in names if _NUMPY.match(name)), *(() if zipped else _USUAL)]
    with torch.serialization.safe_globals([*shells, *((_Number, name) for name in numbers)]):
        return torch.load(path, map_location="cpu", weights_only=True)


_USUAL = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")


def _foreign_names(path: Path) -> list[str]:
    """What the pickle in a .zip names beyond tensors; raises UserError when that is not harmless."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any("/code/" in member.filename for member in members):
        raise UserError(
            f"{path}: is TorchScript, which torch has given up and which runs its author's code; export the "
            "network by torch.onnx.export, or save its state_dict as safetensors"
        )
    if sum(member.file_size for member in members) > 4 * path.stat().st_size:  # torch does not compress
        raise UserError(f"{path}: is packed to a small part of its size, as no checkpoint is; refused")
    names: list[str] = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    refused = sorted(name for name in names if not (_HARMLESS.match(name) or _NUMPY.match(name)))
    if refused:
        raise UserError(
            f"{path}: refused, as reading it would run {', '.join(refused)}; save its state_dict as safetensors"
        )
    return names
