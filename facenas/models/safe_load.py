"""Reads tensors out of files from anywhere, without running what such a file may hold."""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from facenas.errors import UserError

# Settings and states that Lightning and its users leave in a checkpoint beside the weights.
_HARMLESS = re.compile(
    r"((pytorch_lightning|lightning|lightning_fabric|omegaconf|pathlib)\.|utils\.dotdict$|argparse\.Namespace$)"
)


class _Shell:
    """Stands for a harmless class while a checkpoint is read: its objects become plain mappings."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a torch checkpoint (its `state_dict`, if it has one), by name.

    Raises UserError when the file is missing, torn or no checkpoint, or when opening it would run foreign code.
    """
    try:
        tree: Any = _load(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnpicklingError:
        raise UserError(
            f"{path}: is no checkpoint, or one that holds more than weights; save its state_dict as safetensors"
        ) from None
    except Exception as error:  # a torn file fails in many ways, deep inside torch
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: is not a whole checkpoint ({reason}); fetch it again") from None
    tree = tree.get("state_dict", tree) if isinstance(tree, dict) else {}
    return {k: v for k, v in tree.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    # Before torch 1.6 it was no .zip: then tensors alone are read.
    zipped = zipfile.is_zipfile(path)
    if zipped and any("/code/" in name for name in zipfile.ZipFile(path).namelist()):
        raise UserError(
            f"{path}: is TorchScript, which torch has given up and which runs its author's code; export the "
            "network by torch.onnx.export, or save its state_dict as safetensors"
        )
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
    refused = sorted(name for name in names if not _HARMLESS.match(name))
    if refused:
        raise UserError(
            f"{path}: refused, as reading it would run {', '.join(refused)}; save its state_dict as safetensors"
        )
    with torch.serialization.safe_globals([(_Shell, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)
