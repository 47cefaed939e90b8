"""What heads have in common: the kernel, float32, and for those with a margin, cosines.

CVLface and arcface_torch give the margin no gradient; here it has one, as in `mk-minchul/AdaFace:head.py`.
Only the logits at the labels need arc cosines: numerically the same as in that file, and cheaper.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from facenas.config import ADDED, Config
from facenas.errors import UserError
from facenas.models.dropout import hashed
from facenas.models.heads import HEADS

if TYPE_CHECKING:
    from facenas.models.heads.split import Share


def draw_kernel(embedding: int, identities: int, seed: int, columns: slice = slice(None)) -> Tensor:
    """(embedding, identities) of unit columns from `seed` alone, or some `columns` of just these.

    They are drawn row by row, so that nobody holds more than what is asked for.
    """
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.empty(embedding, len(range(identities)[columns]))
    for row in kernel:
        row.copy_(torch.empty(identities).uniform_(-1, 1, generator=generator)[columns])
    return F.normalize(kernel, dim=0)


class Head(nn.Module, ABC):
    """One column of `kernel` (embedding, identities) for each identity; always computes in float32.

    The kernel is drawn from `seed` alone; `settings` left out are the head's own defaults.

    separable: whether the columns may be split over processes (`facenas.models.heads.split`), each of which
    then calls `logits` with the joint batch and its own columns. For that, a logit must depend on no other
    column, and labels of -1 must be taken for columns of other processes. Parameters have columns last.
    """

    class Settings(Config):
        """A head without settings."""

    settings: Config
    separable: ClassVar[bool] = False
    share: Share | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        HEADS.name_of(cls)  # its settings know it in every process: workers get them without the registry

    def __init__(self, embedding: int, identities: int, seed: int, settings: Config | None = None) -> None:
        super().__init__()
        self.settings = settings or self.Settings()
        self.kernel = nn.Parameter(draw_kernel(embedding, identities, seed))
        self._placed: tuple[Tensor, int, int] | None = None

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Raw z (n, embedding), labels (n,) int64 -> logits (n, identities) float32."""
        with torch.autocast(z.device.type, enabled=False):
            return self.logits(z.float(), labels)

    @abstractmethod
    def logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """The same for float32 z."""

    def judge(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Raw z (n, embedding), labels (n,) int64 -> their mean cross-entropy, and how many are right."""
        with torch.autocast(z.device.type, enabled=False):
            if self.share is not None:
                return self.share.judge(self, z.float(), labels)
            logits, at, _ = self.scores(z.float(), labels)
        return F.cross_entropy(logits, at), (logits.argmax(1) == at).sum()

    def scores(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits of the columns that take part, where among them the labels are, which ones (None: all)."""
        return self.logits(z, labels), labels, None

    def place(self, key: Tensor, start: int, total: int) -> None:
        """The next `judge` is for rows `start` and following of a joint batch of `total` rows.

        key: (2,) int64 on the head's device, below 2^31, the first one odd; it decides what is sampled.
        Heads that are neither split nor sampled need not be told.
        """
        self._placed = key, start, total

    @property
    def placed(self) -> tuple[Tensor, int, int]:
        """What `place` was told last."""
        if self._placed is None:
            raise RuntimeError("a head that is sampled or split needs `place` before each batch")
        return self._placed

    def begin_at(self, columns: Tensor) -> None:
        """Unit columns (embedding, identities) for the kernel, not drawn ones; a split head takes its own.

        A head whose kernel is of another shape has to override this.
        """
        own = columns if self.share is None else self.share.part(columns)
        if own.shape != self.kernel.shape:
            shapes = f"{tuple(self.kernel.shape)}, not {tuple(own.shape)}"
            raise UserError(f"head {self.settings.owner.name}: its kernel is {shapes}; override begin_at")
        self.kernel.data.copy_(own)

    @property
    def size(self) -> int:
        """Its parameters, those with other processes too."""
        if self.share is None:
            return sum(p.numel() for p in self.parameters())
        return sum(p.numel() // p.shape[-1] for p in self.parameters()) * self.share.identities


HEADS.base = Head


class MarginHead(Head):
    """`scale` times the cosines between z and the columns, made smaller at the labels."""

    class Settings(Config):
        """`margin`: in radians or as a part of the cosine, as the head has it; `scale` multiplies cosines.

        `sample_rate`: the share of the columns that a training step works with (arXiv 2203.15565, "Partial
        FC"): those of the batch, and others that the step draws. The rest get a gradient of 0, and momentum and
        weight decay go on for them, as in `deepinsight/insightface:recognition/arcface_torch/partial_fc_v2.py`:
        one optimizer serves, and what is seldom drawn shrinks like all else. Training accuracy is that among
        the columns of a step.
        """

        margin: float = Field(0.4, ge=0)
        scale: float = Field(64.0, gt=0)
        sample_rate: Annotated[float, ADDED, Field(gt=0, le=1)] = 1.0

    settings: Settings
    eps = 1e-4  # cosines are kept this far from +-1, where the arc cosine has no gradient

    def logits(self, z: Tensor, labels: Tensor, columns: Tensor | None = None) -> Tensor:
        """The scaled cosines; at the labels, what `apply_margin` makes of them.

        columns: (c,) int64, those of the kernel that `labels` are numbers of; None: all.
        """
        kernel = self.kernel if columns is None else self.kernel.index_select(1, columns)
        norms = torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(1e-12)
        cosines = (z / norms) @ F.normalize(kernel, dim=0)
        cosines = cosines.clamp(-1 + self.eps, 1 - self.eps)
        at = labels.clamp_min(0).unsqueeze(1)
        plain = cosines.gather(1, at).squeeze(1)
        less = self.apply_margin(plain, norms.detach().squeeze(1))
        at_labels = torch.where(labels < 0, plain, less)  # below 0: another process has the column
        scale = self.settings.scale
        logits: Tensor = scale * cosines
        return logits.scatter_(1, at, scale * at_labels.unsqueeze(1))

    def scores(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Head.scores`: in training, those of the columns that are sampled."""
        if not self.training or self.settings.sample_rate == 1:
            return super().scores(z, labels)
        columns = self.sample(labels)
        at = torch.where(labels < 0, labels, torch.searchsorted(columns, labels))
        return self.logits(z, at, columns), at, columns

    def sample(self, labels: Tensor) -> Tensor:
        """The numbers of this step's columns, in order: the labels' and those of the least hashes.

        How many they are depends on the shapes alone, and labels that are there more than once leave room for
        others.
        """
        count, (key, _, _) = self.kernel.shape[1], self.placed
        first = 0 if self.share is None else self.share.start
        # Different numbers have different hashes: there are no ties, and every device draws the same columns.
        order = hashed(torch.arange(first, first + count, device=labels.device), key, layer=-1)
        needed = torch.zeros(count + 1, dtype=torch.int64, device=labels.device)
        needed.scatter_(0, torch.where(labels < 0, count, labels), 1)
        size = min(count, max(round(self.settings.sample_rate * count), len(labels)))
        least = (order - (needed[:count] << 32)).topk(size, largest=False, sorted=False)
        return least.indices.sort().values

    @abstractmethod
    def apply_margin(self, cosines: Tensor, norms: Tensor) -> Tensor:
        """(n,) cosines at the labels and norms of z -> (n,) what stands there in their place."""

    def widen(self, cosines: Tensor, angle: Tensor | float) -> Tensor:
        """Cosines of angles that are `angle` radians wider, kept inside (0, pi)."""
        # Beyond pi the cosine would rise again and reward an embedding for turning further away. The clamp
        # gives such an image no gradient at its label, in AdaFace's file too: the other logits still
        # move it. (pytorch-metric-learning goes on with a straight line there, and other figures follow.)
        return (cosines.arccos() + angle).clamp(self.eps, math.pi - self.eps).cos()
