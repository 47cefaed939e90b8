"""The evaluated network at the head of the page: its size, and how images are brought to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from facenas.report.tiles import Tile
from facenas.report.wording import count, short

_SHOWN = ("name", "parameters", "macs", "size", "color", "mean", "std")  # in title and tiles


def model_tiles(model: dict[str, Any]) -> Iterator[Tile]:
    """Size and preprocessing, as far as they are known."""
    if model.get("parameters") is not None:
        parameters = model["parameters"]
        yield Tile("Parameters", short(parameters), count(parameters))
    if model.get("macs") is not None:
        yield Tile("MACs", short(model["macs"]), "multiply-accumulates for one image")
    if model.get("size") is not None:
        yield Tile("Embedding", count(model["size"]), "numbers for one face")
    if model.get("color") is not None:
        yield Tile("Input assumed", str(model["color"]).upper(), _scaling(model))


def model_facts(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Everything else that is known of the network, in words."""
    for key, value in model.items():
        if key not in _SHOWN and value is not None:
            yield key.replace("_", " "), _words(value)


def _scaling(model: dict[str, Any]) -> str:
    if model.get("mean") is None or model.get("std") is None:
        return "order of the colours"
    return f"(x − {_numbers(model['mean'])}) / {_numbers(model['std'])} of pixel values x, 0 to 255"


def _numbers(values: float | Sequence[float]) -> str:
    """One number when all channels have the same."""
    each = [values] if isinstance(values, int | float) else list(values)
    distinct = list(dict.fromkeys(f"{value:.4g}" for value in each))
    return distinct[0] if len(distinct) == 1 else f"({', '.join(f'{v:.4g}' for v in each)})"


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
