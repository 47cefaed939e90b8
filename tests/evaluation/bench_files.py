"""Small files in the benches' formats."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from facenas.evaluation.benches import find_bench

SHARED = Path(__file__).parents[2].parent / "shared/data/faces"


def face(seed: int, size: int = 112) -> np.ndarray:
    """A smooth picture that JPEG keeps nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, ending: str = "jpg") -> bytes:
    """The picture as a file."""
    stream = io.BytesIO()
    kind = "jpeg" if ending == "jpg" else ending
    Image.fromarray(pixels).save(stream, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return stream.getvalue()


def write(root: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Files by name, in a folder, or in a .zip when `root` ends so."""
    if root.suffix == ".zip":
        with zipfile.ZipFile(root, "w", compression) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return root
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def faces(names: list[str]) -> dict[str, bytes]:
    """A picture of its own under each name."""
    return {name: encoded(face(i), name.rpartition(".")[2]) for i, name in enumerate(names)}


def read_pairs(bench: str, data: Path, pairs: Path | None = None):
    """What a bench of pairs reads."""
    return find_bench(bench, pairs=pairs).protocol.read(data)
