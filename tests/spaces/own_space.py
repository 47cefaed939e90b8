"""A search space of one's own, complete in one file: networks of dense layers, for classes of small images."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from pydantic import Field

from facenas.config import Config
from facenas.spaces import Architecture, SearchSpace


@dataclass(frozen=True)
class Dense(Architecture):
    """Widths of the hidden layers, what they do between, and what goes in and out."""

    widths: tuple[int, ...]
    activation: str
    slope: float
    normalized: bool
    side: int
    in_channels: int
    num_classes: int

    def build(self, seed: int):
        """Images of `side` pixels -> logits."""
        from torch import nn

        from facenas.models.build import seeded

        with seeded(seed):
            before, layers = self.in_channels * self.side**2, [nn.Flatten()]
            for width in self.widths:
                layers += [nn.Linear(before, width), nn.LeakyReLU(self.slope), nn.LayerNorm(width)]
                before = width
            return nn.Sequential(*layers, nn.Linear(before, self.num_classes))


class DenseSpace(SearchSpace[Dense]):
    """One to `max_layers` layers."""

    class Settings(Config):
        """How many layers, and how wide they may be."""

        max_layers: int = Field(3, ge=1)
        widths: tuple[int, ...] = (4, 8, 16)

    Architecture = Dense

    def sample(self, rng: random.Random) -> Dense:
        """Number and widths of layers each drawn uniformly."""
        s, images = self.settings, self.images
        widths = [rng.choice(s.widths) for _ in range(rng.randint(1, s.max_layers))]
        ends = images.image_size, images.in_channels, images.num_classes
        return Dense(tuple(widths), "leaky", rng.choice((0.0, 0.1)), True, *ends)

    def mutate(self, arch: Dense, rng: random.Random) -> Dense:
        """Other widths for as many layers."""
        return replace(arch, widths=tuple(rng.choice(self.settings.widths) for _ in arch.widths))
