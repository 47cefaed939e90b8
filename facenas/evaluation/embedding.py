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

_BATCH = 128


@torch.inference_mode()
def embed(model: nn.Module, batches: Iterable[Tensor], device: Device) -> NDArray[np.float64]:
    """(n, E) unit embeddings of batches (m, 112, 112, 3) uint8 RGB.

    Raw embeddings of image and horizontal flip are added before the normalisation, so the clearer one
    counts more. Source: `mk-minchul/AdaFace:utils.py`, `deepinsight/insightface:.../verification.py`.
    """
    model.eval()
    found = []
    for batch in batches:
        images = to_input(batch.to(device.torch_device))
        with device.autocast():
            summed = model(images).float() + model(images.flip(3)).float()
        found.append(summed.cpu())
    raw = torch.cat(found).double().numpy()
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    return np.asarray(raw / np.maximum(norms, 1e-12))


def pair_distances(
    model: nn.Module, store: FaceStore, pairs: NDArray[np.int64], device: Device
) -> NDArray[np.float64]:
    """(n,) squared distances in [0, 4] of pairs (n, 2) of image numbers; each image is embedded once."""
    images, places = np.unique(pairs, return_inverse=True)
    embeddings = embed(model, batches_in_order(store, images, _BATCH), device)
    return distances_of(embeddings, places.reshape(pairs.shape))


def distances_of(embeddings: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) squared distances in [0, 4] of pairs (n, 2) of rows of unit `embeddings`."""
    first, second = embeddings[pairs].swapaxes(0, 1)
    return np.asarray(((first - second) ** 2).sum(1))
