"""A head whose columns are split over the processes that train together (arXiv 2203.15565, "Partial FC").

The identities of WebFace42M, 2,059,906, are a kernel of 4.2 GB in float32 at 512 numbers an embedding; with its
gradient and momentum 12.7 GB, and 4.2 GB of logits for a batch of 512, several times over. Of all these a
process of `world` has the part 1 / `world`. Per step and image they exchange the embedding, its gradient, and
a few numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from facenas.config import Config
from facenas.models.heads.base import Head, draw_kernel
from facenas.models.sync_batchnorm import joint_sum

MANY = 100_000  # identities from which on a head is split: fewer cost less than what is exchanged


def build_head(embedding: int, identities: int, seed: int, settings: Config) -> Head:
    """The head of these settings; among several processes split, when it is large or sampled, and separable.

    A sampled head that is not separable samples in each process for the rows there.
    """
    owner: type[Head] = settings.owner
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    large = identities >= MANY or getattr(settings, "sample_rate", 1) < 1
    if several and large and owner.separable:
        return split_head(embedding, identities, seed, settings)
    return owner(embedding, identities, seed, settings)


def split_head(embedding: int, identities: int, seed: int, settings: Config) -> Head:
    """This process's columns of the head that `settings.owner` would build: the same numbers from `seed`.

    Only its `judge` is of the whole head.
    """
    share = Share(identities, dist.get_rank(), dist.get_world_size())
    head: Head = settings.owner(embedding, share.stop - share.start, seed, settings)
    head.kernel.data = draw_kernel(embedding, identities, seed, slice(share.start, share.stop))
    head.share = share
    return head


@dataclass(frozen=True)
class Share:
    """Which of a head's columns are this process's: number `start` to before `stop`."""

    identities: int
    rank: int
    world: int

    @property
    def start(self) -> int:
        """The first one."""
        return self.identities * self.rank // self.world

    @property
    def stop(self) -> int:
        """The one after the last."""
        return self.identities * (self.rank + 1) // self.world

    def judge(self, head: Head, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """This process's rows of the joint batch -> their mean cross-entropy over all columns, and hits.

        All processes call it together and go backward together, each with its own loss, weighted as
        `facenas.training.distributed.weight` says. Then the columns have the gradients of the mean loss of the
        joint batch; z has `world` times its own, since DDP takes the mean of the backbone's over processes.
        """
        _, start, total = head.placed
        own, below = slice(start, start + len(z)), total - start - len(z)
        # Rows of others are 0: the sum over processes is the joint batch, however uneven its slices are.
        joint = joint_sum(F.pad(z, (0, 0, start, below)), self.world)
        identities = F.pad(labels, (start, below))
        dist.all_reduce(identities)
        here = (identities >= self.start) & (identities < self.stop)
        logits, at, columns = head.scores(joint, torch.where(here, identities - self.start, -1))

        top, number = logits.detach().max(1)
        greatest = top.clone()
        dist.all_reduce(greatest, dist.ReduceOp.MAX)
        powers = (logits - greatest.unsqueeze(1)).exp().sum(1)
        at_label = logits.gather(1, at.clamp_min(0).unsqueeze(1)).squeeze(1) - greatest
        shares = torch.stack([powers, torch.where(here, at_label, 0)])
        powers, at_label = joint_sum(shares, 1 / self.world)
        losses = powers.log() - at_label

        # Of equal logits the first one counts, as for argmax.
        number = number if columns is None else columns.index_select(0, number)
        found = torch.where(top == greatest, number + self.start, self.identities)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return losses[own].mean(), (found == identities)[own].sum()

    def whole(self, columns: Tensor) -> Tensor:
        """(..., columns of each process) -> (..., identities) on the CPU of the first process.

        All processes call it together; the others get their own back. One share after another is moved.
        """
        if self.rank:
            dist.send(columns.contiguous(), 0)
            return columns
        whole = torch.empty(*columns.shape[:-1], self.identities, dtype=columns.dtype)
        whole[..., : self.stop] = columns
        for rank in range(1, self.world):
            theirs = Share(self.identities, rank, self.world)
            part = columns.new_empty(*columns.shape[:-1], theirs.stop - theirs.start)
            dist.recv(part, rank)
            whole[..., theirs.start : theirs.stop] = part
        return whole

    def part(self, whole: Tensor) -> Tensor:
        """(..., identities) -> (..., this process's columns), a copy."""
        return whole[..., self.start : self.stop].clone(memory_format=torch.contiguous_format)
