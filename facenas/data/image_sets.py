"""Image classification sets: found, decoded once into a cache, then memory-mapped.

`prepare` is called by the main process, `open_image_set` by it and by every worker: the pixels are
in memory once, however many processes train on them.
"""

from __future__ import annotations

import os
from pathlib import Path

from facenas.data.config import DataConfig
from facenas.data.entries import FORMAT_VERSION, ImageSet, publish, read_entry, write_entry
from facenas.data.folders import find_folder
from facenas.data.named import KNOWN_NAMES, find_named, known_name
from facenas.data.source import Source
from facenas.errors import UserError
from facenas.training.recipes import Recipe

__all__ = ["ImageSet", "crop_side", "default_cache", "open_image_set", "prepare"]


def prepare(config: DataConfig, cache: Path | None = None) -> Path:
    """The folder of the decoded set that `config` names, for `open_image_set`.

    Decodes on the first call only; a changed source, size or format gets another folder below
    `cache`. Raises UserError when the set is unknown, missing or damaged.
    """
    source = _find(config)
    entry = (cache or default_cache()) / source.key(FORMAT_VERSION)
    if not entry.is_dir():
        publish(entry, lambda partial: write_entry(source.name, source.decode(), partial))
    return entry


def open_image_set(folder: Path) -> ImageSet:
    """The set that `prepare` left in `folder`; its arrays are memory-mapped, copy-on-write.

    Raises UserError when a file is missing or torn.
    """
    return read_entry(folder)


def crop_side(recipe: Recipe, image_set: ImageSet) -> int:
    """Side of the training crops in pixels; raises UserError when the padded images are smaller."""
    crop, size = recipe.crop or image_set.crop_size, image_set.image_size
    if crop > size + 2 * recipe.pad:
        raise UserError(
            f"recipe.crop {crop}: images of {size} pixels padded by {recipe.pad} are smaller; "
            "raise recipe.pad or lower recipe.crop"
        )
    return crop


def default_cache() -> Path:
    """`$FACENAS_CACHE`, else `$XDG_CACHE_HOME/facenas`, else `~/.cache/facenas`."""
    if own := os.environ.get("FACENAS_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "facenas"


def _find(config: DataConfig) -> Source:
    """A known name first (`./digits` is the folder of that name), then a path."""
    name = known_name(config.name)
    if name is not None:
        return find_named(name, config)
    path = Path(config.name).expanduser()
    if path.exists():
        return find_folder(path, config.image_size)
    if "/" in config.name or "\\" in config.name or config.name.endswith(".zip"):
        raise UserError(f"{config.name}: no such file or folder")
    raise UserError(
        f"{config.name}: unknown data set; there are {', '.join(KNOWN_NAMES)}, or give the path of "
        "a folder or .zip of images"
    )
