"""Embeddings of face crops, as published figures use them: image and mirror image added, then unit length."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facenas.data.faces.loader import batches_in_order, to_input
from facenas.data.faces.store import FaceStore
from facenas.device import Device
from facenas.evaluation.arrays import Floats
from facenas.evaluation.metrics.ten_fold import squared_distances

_BATCH = 128


@torch.inference_mode()
def raw_embeddings(model: nn.Module, images: Tensor, device: Device) -> Tensor:
    """(m, 112, 112, 3) uint8 RGB -> (m, E) float32 on the CPU, as the model gives them: not normalised."""
    with device.autocast():
        outputs: Tensor = model(to_input(images.to(device.torch_device)))
    return outputs.float().cpu()


def embed(model: nn.Module, batches: Iterable[Tensor], device: Device) -> NDArray[np.float64]:
    """(n, E) unit embeddings of batches (m, 112, 112, 3) uint8 RGB.

    Raw embeddings of image and horizontal flip are added before the normalisation, so the clearer one
    counts more. Source: `mk-minchul/AdaFace:utils.py`, `deepinsight/insightface:.../verification.py`.
    """
    model.eval()
    found = [
        raw_embeddings(model, batch, device) + raw_embeddings(model, batch.flip(2), device)
        for batch in batches
    ]
    raw = torch.cat(found).double().numpy()
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    return np.asarray(raw / np.maximum(norms, 1e-12))


def pair_distances(
    model: nn.Module, store: FaceStore, pairs: NDArray[np.int64], device: Device
) -> Floats:
    """(n,) squared distances in [0, 4] of pairs (n, 2) of image numbers; each image is embedded once."""
    images, places = np.unique(pairs, return_inverse=True)
    embeddings = embed(model, batches_in_order(store, images, _BATCH), device)
    first, second = places.reshape(pairs.shape).T
    return squared_distances(embeddings[first], embeddings[second])
