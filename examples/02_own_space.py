"""A search space of one's own: multilayer perceptrons, in one class for the description and one for the space.

python examples/02_own_space.py
"""

from dataclasses import dataclass, replace

import facenas
from facenas.config import Config
from facenas.spaces import Architecture, SearchSpace


@dataclass(frozen=True)
class Perceptron(Architecture):
    """Its fields become JSON; parameters, MACs and memory are counted on the module itself."""

    widths: tuple[int, ...]
    in_channels: int
    num_classes: int

    def build(self, seed):
        """(n, c, h, w) -> logits; weights from `seed` alone."""
        import torch
        from torch import nn

        torch.manual_seed(seed)
        layers = [nn.AdaptiveAvgPool2d(8), nn.Flatten()]
        before = self.in_channels * 64
        for width in self.widths:
            layers += [nn.Linear(before, width), nn.ReLU()]
            before = width
        return nn.Sequential(*layers, nn.Linear(before, self.num_classes))


class Perceptrons(SearchSpace[Perceptron]):
    """All with 1 to `max_layers` layers of 8, 16, 32 or 64 units."""

    Architecture = Perceptron

    class Settings(Config):
        """How many layers at most."""

        max_layers: int = 3

    def sample(self, rng):
        """A random member."""
        widths = tuple(rng.choice((8, 16, 32, 64)) for _ in range(rng.randint(1, self.settings.max_layers)))
        return Perceptron(widths, self.images.in_channels, self.images.num_classes)

    def mutate(self, arch, rng):
        """Another width of one layer."""
        place = rng.randrange(len(arch.widths))
        width = rng.choice((8, 16, 32, 64))
        return replace(arch, widths=(*arch.widths[:place], width, *arch.widths[place + 1 :]))


found = facenas.search(
    space=Perceptrons(max_layers=2),
    strategy=facenas.strategies.RandomSearch(population=4, generations=2, epochs=2),
    data="digits",
    run="runs/perceptrons",
)
for member in found.front:
    widths = member["architecture"]["widths"]
    print(f"{member['accuracy']:.2f} % with {member['parameters']:,.0f} parameters: {widths}")
