"""A named network at other widths and depths: what a search has to be compared with at equal cost.

A family says which networks it has (`NAMED`) and how one of them is scaled (`scaled`); the space is all of them
at the multipliers of its settings, as in "EfficientNet" (arXiv 1905.11946), section 3.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any, ClassVar, Self, TypeVar

from pydantic import Field, PositiveFloat, model_validator

from facenas.config import Config
from facenas.errors import UserError
from facenas.spaces.base import (
    FACE,
    FACE_SIZE,
    Architecture,
    GeneSpace,
    ImageFacts,
    check_choices,
    check_face_size,
)

WIDTHS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5)
DEPTHS = (0.5, 0.75, 1.0, 1.5)


class ScaledArchitecture(Architecture):
    """A face network that can be made narrower, wider, shallower, deeper, with a z of another length."""

    task = FACE
    in_channels = 3
    num_classes = 0

    @abstractmethod
    def scaled(self, width: float = 1, depth: float = 1, embedding: int | None = None) -> Self:
        """Channels times `width`, rounded as the family does; repeated blocks times `depth`, one or more."""

    @abstractmethod
    def count_parameters(self) -> int:
        """Exact number of trainable parameters, without a classification head."""

    def count_macs(self, image_size: int = FACE_SIZE) -> int:
        """Multiply-accumulates of convolutions and matrix products for one image, which must be 112x112."""
        check_face_size(image_size, image_size)
        return self._count_macs()

    @abstractmethod
    def _count_macs(self) -> int: ...


S = TypeVar("S", bound=ScaledArchitecture)


class ScaledSpace(GeneSpace[S]):
    """All scaled variants of one network of a family; a row has the width's and the depth's multiplier."""

    NAMED: ClassVar[Mapping[str, Any]]

    class Settings(Config):
        """network: the name of the one that is scaled; embedding: how long z is, 0: as the network has it."""

        network: str
        width_multipliers: tuple[PositiveFloat, ...] = WIDTHS
        depth_multipliers: tuple[PositiveFloat, ...] = DEPTHS
        embedding: int = Field(0, ge=0)

        @model_validator(mode="after")
        def _choices_differ(self) -> Self:
            check_choices(self, ("width_multipliers", "depth_multipliers"))
            return self

        @model_validator(mode="after")
        def _network_known(self) -> Self:
            known = self.owner.NAMED
            if self.network not in known:
                raise ValueError(f"network: there is no {self.network}; there are {', '.join(known)}")
            return self

    tasks = (FACE,)

    def bind(self, images: ImageFacts) -> Self:
        """This space for faces of 112x112 pixels."""
        bound = super().bind(images)
        check_face_size(images.image_size, images.image_size)
        return bound

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Choices of width and of depth."""
        return len(self.settings.width_multipliers), len(self.settings.depth_multipliers)

    def sample(self, rng: random.Random) -> S:
        """Both multipliers drawn uniformly."""
        return self.decode([rng.randrange(size) for size in self.sizes])

    def crossover(self, first: S, second: S, rng: random.Random) -> S:
        """Each multiplier from either parent."""
        pairs = zip(self.encode(first), self.encode(second), strict=True)
        return self.decode([rng.choice(pair) for pair in pairs])

    @cached_property
    def _rows(self) -> dict[S, tuple[int, ...]]:
        """The first row of each member: rounding makes one network of several."""
        found: dict[S, tuple[int, ...]] = {}
        for row in product(*map(range, self.sizes)):
            found.setdefault(self._decode(row), row)
        return found

    def _decode(self, row: Sequence[int]) -> S:
        bounds = self.settings
        width, depth = sorted(bounds.width_multipliers)[row[0]], sorted(bounds.depth_multipliers)[row[1]]
        member: S = self.NAMED[bounds.network].scaled(width, depth, bounds.embedding or None)
        return member

    def _genes(self, arch: S) -> list[int | None]:
        if arch not in self._rows:
            raise UserError("the network is not among the scaled variants of the space")
        return list(self._rows[arch])


def rounded(channels: float, divisor: int) -> int:
    """To the nearest multiple, up at half, one or more of them; never below 0.9 of `channels` (MobileNetV2)."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def repeated(count: int, depth: float) -> int:
    """Blocks of a stage at another depth: rounded up, as in "EfficientNet"; one or more."""
    return max(1, -int(-count * depth // 1))
