"""Where a face head begins behind a network that is trained already: at each identity's mean embedding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from facenas.data.faces.loader import batches_in_order
from facenas.evaluation.embedders.module import summed_embeddings
from facenas.files import reading
from facenas.training import distributed
from facenas.training.fit import save

if TYPE_CHECKING:
    from facenas.models.heads.base import Head
    from facenas.training.faces import FaceTask

_BATCH, _GPU_BATCH = 128, 512  # images; their mirror images come beside them


def begin_head(task: FaceTask, head: Head, path: Path, key: str) -> None:
    """The head's columns become the `class_means`, kept at `path` for the training of this `key`."""
    with reading(path, "remove it: it is made anew"):
        kept = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else {}
    columns = kept["columns"] if kept.get("key") == key else None
    if columns is None:
        columns = class_means(task, head.kernel.shape[0])
        save(path, {"key": key, "columns": columns})
    head.begin_at(columns)


@torch.inference_mode()
def class_means(task: FaceTask, embedding: int) -> Tensor:
    """(embedding, identities) float32 on the CPU: of each identity the mean unit embedding, of length 1.

    Of all training images, each with its mirror image, by the network as it is: "imprinted weights" (arXiv
    1712.07136, section 3.1). Of processes that train together, each embeds a part, and all get all.
    """
    labels, device, loader = torch.from_numpy(task.loader.labels), task.device, task.loader
    own = torch.arange(len(labels))[distributed.rank() :: distributed.world()]
    sums = torch.zeros(task.identities, embedding)
    size = _GPU_BATCH if device.is_gpu else _BATCH
    if task.pixels is not None:
        batches: Iterator[Tensor] = (
            task.pixels[rows.to(task.pixels.device)] for rows in torch.split(own, size)
        )
    else:
        batches = batches_in_order(loader.store, loader.indices[own.numpy()], size, loader.readers)
    bar = tqdm(total=len(own), desc="class means", unit="image", disable=None, delay=2, leave=False)
    with bar:
        for rows, images in zip(torch.split(own, size), batches, strict=True):
            raw = summed_embeddings(task.model, [images.to(device.torch_device)], device)
            sums.index_add_(0, labels[rows], F.normalize(raw).cpu())  # on a CPU in order: the same bits again
            bar.update(len(rows))
    joint = distributed.total(sums.to(device.torch_device)).cpu()
    return F.normalize(joint).T.contiguous()
