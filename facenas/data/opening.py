"""Data by name: a classification set, or a store of faces."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from facenas.data import image_sets
from facenas.data.config import DataConfig
from facenas.data.entries import ImageSet
from facenas.errors import UserError

if TYPE_CHECKING:  # zarr takes half a second to import: classification does without
    from facenas.data.faces.store import FaceStore

TrainingData: TypeAlias = "ImageSet | FaceStore"

DEMO = "demo"  # generated faces, made on first use
_DEMO_IDENTITIES, _DEMO_IMAGES = 120, 24

HOW_TO_GET_FACES = (
    "import CASIA-WebFace by `facenas data import faces_webface_112x112 casia.zarr` and give "
    "--data casia.zarr, or try at once with --data demo (generated faces)"
)


def prepare(config: DataConfig, cache: Path | None = None) -> Path:
    """The folder that `open_data` opens: a store, or the decoded set in `cache` that `config` names.

    Raises UserError when the data is unknown, missing or damaged.
    """
    if config.name == DEMO:
        return _demo_store(cache or image_sets.default_cache())
    path = Path(config.name)
    if _names_store(path):
        if not path.exists():
            raise UserError(f"{path}: there is no such store of faces; {HOW_TO_GET_FACES}")
        return path
    return image_sets.prepare(config, cache)


def open_data(folder: Path) -> TrainingData:
    """What `prepare` gave, memory-mapped. Raises UserError when a file is missing or torn."""
    if not _names_store(folder):
        return image_sets.open_image_set(folder)
    from facenas.data.faces.store import open_store

    return open_store(folder)


def describe(data: TrainingData) -> dict[str, Any]:
    """What a run notes of its data."""
    if isinstance(data, ImageSet):
        return {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train_images": len(data.train_labels),
            "test_images": len(data.test_labels),
            "classes": data.num_classes,
            "image_size": data.image_size,
            "in_channels": data.in_channels,
        }
    return {
        "name": data.path.stem,
        "source": data.source,
        "fingerprint": data.fingerprint,
        "train_images": len(data),
        "identities": data.identities,
        "image_size": 112,
        "in_channels": 3,
    }


def _names_store(path: Path) -> bool:
    """Whether the path is, or should be, a store of faces."""
    return path.suffix == ".zarr" or (path / "zarr.json").exists()


def _demo_store(cache: Path) -> Path:
    from facenas.data.faces.generated import VERSION, write_generated
    from facenas.data.faces.store import open_store

    name = f"generated-{_DEMO_IDENTITIES}x{_DEMO_IMAGES}-v{VERSION}.zarr"
    store = cache / name
    try:
        if store.exists():
            open_store(store)
            return store
    except UserError:  # of an older version: it can be made again
        shutil.rmtree(store, ignore_errors=True)
    write_generated(store, _DEMO_IDENTITIES, _DEMO_IMAGES, seed=0)
    return store
