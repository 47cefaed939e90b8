"""A teacher on disk: what it is, and its embeddings of a store, kept in the cache or made in every step.

They are kept in the cache, beside those of benches, and not beside the store: a store may lie where nobody can
write, may be a URL, and serves several teachers; and the cache has the progress, the lock, the record of what
is whole after a kill, and the command that lists and removes. What they are keyed by, the teacher with its
preprocessing and the fingerprint of the store, does not depend on the place of either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facenas.data import TrainingData
from facenas.data.faces.store import FaceStore
from facenas.device import Device
from facenas.errors import UserError
from facenas.evaluation.embedders import Embedder, InputOptions, open_embedder, tell_assumed
from facenas.evaluation.embedders.cache import MIRRORED, PLAIN, keep_units
from facenas.evaluation.embedders.device_batches import DeviceBatches
from facenas.training.recipes import Distill

Indices = NDArray[np.int64]
Inputs = Callable[[Tensor], Tensor]  # (n, 3, 112, 112) float32 in [-1, 1] -> (n, T) float32


@dataclass(frozen=True)
class Teacher:
    """What trial keys and trainings know of a teacher.

    file: its weights; takes: what it wants of its input, also what a file beside it says; fingerprint: sha256
    over weights and input, wherever they lie; size: T, numbers of its embedding; kept: the folder with those of
    the store, unless it is `online`.
    """

    settings: Distill
    file: Path
    takes: InputOptions
    fingerprint: str
    size: int
    kept: Path | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """For `run.yaml`."""
        return {"fingerprint": self.fingerprint, "size": self.size}

    @property
    def path(self) -> Path:
        """What a training reads."""
        return self.kept or self.file

    def judges_paths(self, embedding: int) -> bool:
        """Whether a network of this size that was not trained itself can be judged as the recipe says."""
        by_agreement = self.settings.agreement or not self.settings.labels
        return not by_agreement or self.compares(embedding)

    def compares(self, embedding: int) -> bool:
        """Whether embeddings of this size are compared with the teacher's as they are, without a projection."""
        return self.settings.kind == "relational" or embedding == self.size

    def at(self, path: Path) -> Teacher:
        """The same, which finds its `path` elsewhere."""
        return replace(self, kept=path) if self.kept else replace(self, file=path)

    def keep(self, store: TrainingData) -> Teacher:
        """With its embeddings of the store, made now unless they are there; online there are none to keep.

        Raises UserError when the teacher or an image cannot be read, or the cache not be written.
        """
        assert isinstance(store, FaceStore), "a recipe for faces has a store of them"
        if self.settings.online:
            return self
        return replace(self, kept=keep_units(self.open(), store, self.settings.dtype))

    def open(self, device: str | None = None, precision: str = "fp32") -> Embedder:
        """The network."""
        return open_embedder(self.file, self.takes, device, precision, tell=False)

    def embeddings(self, store: FaceStore) -> KeptEmbeddings:
        """Those that are kept. Raises UserError when they are missing or damaged."""
        assert self.kept is not None, "an online teacher keeps none"
        return KeptEmbeddings(self.kept, len(store), self.size)

    def fused(self, store: FaceStore, images: Indices) -> NDArray[np.float32]:
        """(m, T): image and mirror image together, as a network is judged by them."""
        if self.kept:
            return self.embeddings(store).fused(images)
        kept = keep_units(self.open(), _Part(store, images), self.settings.dtype)
        return KeptEmbeddings(kept, len(images), self.size).fused(np.arange(len(images)))


def find_teacher(settings: Distill, tell: bool = False) -> Teacher:
    """The teacher that a recipe names; `tell`: says what is assumed of its input.

    Raises UserError when it is missing, damaged or no network of faces.
    """
    path, options = settings.teacher.expanduser(), InputOptions(**dict(settings.input))
    opened = open_embedder(path, options, tell=False)
    if tell:
        tell_assumed(path, opened.facts, "recipe.distill.input")
    file = path / "checkpoints" / "model.pt" if path.is_dir() else path
    digest = _digest(file)
    if file.suffix.lower() == ".onnx":
        from facenas.evaluation.embedders.onnx_graph import weight_files  # needs the extra

        for beside in weight_files(file):
            digest.update(_digest(beside).digest())
    taken = [opened.facts.get(name) for name in ("color", "mean", "std", "output")]
    digest.update(repr([*taken, *filter(None, [options.prefix])]).encode())
    # On another node only `file` is there; CVLface has its order of the colors in a file beside it.
    takes = replace(options, color=opened.facts["color"])
    return Teacher(settings, file.absolute(), takes, digest.hexdigest(), opened.size)


def _digest(file: Path) -> Any:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256")


class KeptEmbeddings:
    """Of n images and of their mirror images, memory-mapped: unit vectors of T numbers."""

    def __init__(self, folder: Path, images: int, size: int) -> None:
        try:
            self._sides = [np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in (PLAIN, MIRRORED)]
        except (OSError, ValueError):
            raise _gone(folder) from None
        if any(side.shape != (images, size) for side in self._sides):
            raise _gone(folder)

    def rows(self, images: Indices, mirrored: NDArray[np.bool_]) -> NDArray[np.floating]:
        """(m, T), as they are kept: of each image, or of its mirror image."""
        plain, turned = self._sides
        found = np.asarray(plain[images])
        found[mirrored] = turned[images[mirrored]]
        return found

    def fused(self, images: Indices) -> NDArray[np.float32]:
        """(m, T): of both sides, added."""
        plain, turned = (side[images].astype(np.float32) for side in self._sides)
        return np.asarray(plain + turned)


def _gone(folder: Path) -> UserError:
    return UserError(
        f"{folder}: the teacher's embeddings are missing or damaged; run it again: they are made anew"
    )


class _Part:
    """Some images of a store, as images whose embeddings are kept."""

    def __init__(self, store: FaceStore, images: Indices) -> None:
        self._store, self._images = store, images
        digest = hashlib.sha256(store.fingerprint.encode())
        digest.update(images.tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def read(self, numbers: Indices) -> NDArray[np.uint8]:
        return self._store.read(self._images[numbers])


@lru_cache(maxsize=2)
def online(teacher: Teacher, device: Device) -> Inputs:
    """The teacher on what the network in training sees, on the device.

    Of a checkpoint the step can be captured there; an ONNX file has the device wait for it.
    """
    if teacher.file.suffix.lower() == ".onnx":
        with torch.cuda.device(device.torch_device) if device.is_gpu else nullcontext():
            embedder = teacher.open()  # on this card, if this onnxruntime can; named, it would have to
    else:
        embedder = teacher.open(str(device.torch_device), "bf16" if device.bf16 else "fp32")

    def embed(inputs: Tensor) -> Tensor:
        images = (inputs.float() + 1).mul_(127.5).round_().to(torch.uint8).permute(0, 2, 3, 1)
        if device.is_gpu and isinstance(embedder.run, DeviceBatches):
            return embedder.run.on_device(images)
        rows = embedder(np.ascontiguousarray(images.cpu().numpy()))
        return torch.from_numpy(rows).to(inputs.device)

    return embed


class Targets:
    """What a teacher says of the images of one training.

    crops: numbers of those that the network is judged by, None for none; judged: (m, T) float32 on the device,
    what it says of them; travel: whether batches bring its embeddings along; capturable: whether a step with it
    can be captured.
    """

    def __init__(self, teacher: Teacher, store: FaceStore, crops: Indices | None, device: Device) -> None:
        is_online = teacher.settings.online
        self._kept = None if is_online else teacher.embeddings(store)
        self._online = online(teacher, device) if is_online else None
        fused = None if crops is None else torch.from_numpy(teacher.fused(store, crops))
        self.judged = None if fused is None else fused.to(device.torch_device)
        self.travel = not is_online
        # ONNX Runtime works for the host, which a captured step cannot wait for.
        self.capturable = self.travel or teacher.file.suffix.lower() != ".onnx"

    def batch(self, images: Indices, mirrored: NDArray[np.bool_]) -> tuple[Tensor, ...]:
        """What travels with a batch of these images: (m, T); nothing online."""
        return (torch.from_numpy(self._kept.rows(images, mirrored)),) if self._kept else ()

    def of(self, inputs: Tensor, travelled: Tensor | None) -> Tensor:
        """(m, T) of inputs (m, 3, 112, 112), or what travelled with them."""
        if self._online is not None:
            return self._online(inputs)
        assert travelled is not None
        return travelled
