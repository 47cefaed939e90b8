"""Losses between a network's embeddings and its teacher's, and how far the two agree.

z: (n, E) of the network, raw; teacher: (n, T), of any length. All compute in float32. Sources, with what is
different here: docs/distillation.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facenas.models.build import seeded
from facenas.models.sync_batchnorm import joint_sum
from facenas.training.recipes import Distill

ALL = slice(None)


def cosine_loss(z: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cos(z, teacher); E = T."""
    return 1 - cosines(z, teacher).mean()


def squared_loss(z: Tensor, teacher: Tensor) -> Tensor:
    """Mean of |z / sqrt(E) - teacher / |teacher||^2; E = T.

    The last layer of most networks is a BatchNorm, which puts the mean of |z|^2 at E.
    """
    apart = z / math.sqrt(z.shape[1]) - F.normalize(teacher, dim=1)
    return apart.square().sum(1).mean()


def relational_loss(z: Tensor, teacher: Tensor, own: slice = ALL) -> Tensor:
    """Mean of (cos(z_i, z_j) - cos(teacher_i, teacher_j))^2 over all j but i; over all i, or the `own` rows."""
    apart = similarities(z, own) - similarities(teacher, own)  # of an image with itself 0
    return apart.square().sum() / (len(apart) * (len(z) - 1))


def cosines(z: Tensor, teacher: Tensor) -> Tensor:
    """(n,) of each image; E = T."""
    return (F.normalize(z, dim=1) * F.normalize(teacher, dim=1)).sum(1)


def similarities(embeddings: Tensor, own: slice = ALL) -> Tensor:
    """(rows, n) cosines between all images, or the `own` rows of that matrix."""
    unit = F.normalize(embeddings, dim=1)
    return unit[own] @ unit.T


def correlation(z: Tensor, teacher: Tensor) -> Tensor:
    """Pearson's, in [-1, 1], of the cosines between any two images with the teacher's; n of 3 or more."""
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    count = len(z) * (len(z) - 1)
    deviations = []
    for embeddings in (z, teacher):
        values = similarities(embeddings) * others
        deviations.append((values - values.sum() / count) * others)
    one, other = deviations
    return (one * other).sum() / (one.square().sum() * other.square().sum()).sqrt().clamp_min(1e-12)


class Distillation(nn.Module):
    """The loss of one network in training, with a projection to the teacher's size where that is another.

    size: numbers of the teacher's embedding. The projection is linear, drawn from `seed`, trained with the
    network and no part of it afterwards. Relational losses need none.
    """

    def __init__(self, settings: Distill, embedding: int, size: int, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.projection: nn.Module = nn.Identity()
        if embedding != size and settings.kind != "relational":
            with seeded(seed):
                self.projection = nn.Linear(embedding, size, bias=False)
        self._placed: tuple[Tensor, int, int] | None = None

    def place(self, teacher: Tensor, start: int, total: int) -> None:
        """The next call is for rows `start` and on, with these embeddings, of a joint batch of `total`."""
        self._placed = teacher, start, total

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Raw z (n, E) -> the weighted loss, and the agreement in [-1, 1], summed over the images.

        With several paths of a supernet, z are the rows of the batch once for each.
        """
        if self._placed is None:
            raise RuntimeError("a teacher's embeddings are placed before each batch")
        teacher, start, total = self._placed
        with torch.autocast(z.device.type, enabled=False):
            teacher = teacher.float().repeat(len(z) // len(teacher), 1)
            projected, own = self.projection(z.float()), ALL
            if self.settings.kind == "relational" and len(z) < total:
                projected, teacher = (_joint(rows, start, total) for rows in (projected, teacher))
                own = slice(start, start + len(z))
            loss = self._loss(projected, teacher, own)
            return self.settings.weight * loss, len(z) * self.agreement(projected.detach(), teacher)

    def _loss(self, z: Tensor, teacher: Tensor, own: slice) -> Tensor:
        if self.settings.kind == "relational":
            return relational_loss(z, teacher, own)
        return (cosine_loss if self.settings.kind == "cosine" else squared_loss)(z, teacher)

    def agreement(self, z: Tensor, teacher: Tensor) -> Tensor:
        """Of projected z: the mean cosine; where no space is shared, the correlation of similarities."""
        return correlation(z, teacher) if self.settings.kind == "relational" else cosines(z, teacher).mean()

    @torch.inference_mode()
    def percent(self, z: Tensor, teacher: Tensor) -> float:
        """The agreement of raw z, at least 0, in percent."""
        return 100 * max(0.0, float(self.agreement(self.projection(z), teacher)))


def _joint(rows: Tensor, start: int, total: int) -> Tensor:
    """(total, ...) of all processes that train together, from the rows of each; gradients flow back to them."""
    return joint_sum(F.pad(rows, (0, 0, start, total - start - len(rows))))
