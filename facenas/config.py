"""The base of all settings, and how they are read out of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from facenas.errors import UserError

T = TypeVar("T", bound="Config")

# pydantic puts the kind of a group behind its name in an error's place: nobody writes that into a file.
_KINDS = (
    "plain",
    "ir",
    "cells",
    "graph",
    "classification",
    "faces",
    "macro_micro",
    "multi_objective",
)


class Config(BaseModel):
    """Base of all settings: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def shipped(folder: Literal["configs", "eval_protocols"]) -> Path:
    """The folder of shipped YAML files: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def validate(model: type[T], tree: Any, where: str) -> T:
    """`tree` as a `model`; raises UserError with the first fault and the place it lies at."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = [p for i, p in enumerate(first["loc"]) if i != 1 or p not in _KINDS]
        key = ".".join(str(part) for part in place) or "the settings"
        message = "is not a known setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise UserError(f"{where}: {key}: {message}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises UserError when the file is missing, torn or something else."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: should hold a mapping of settings")
    return tree
