"""The classification space of macro-micro search: a plain chain of convolutions.

No skips, no pooling, no fully connected trunk. Source: "Efficient Global Neural Architecture Search",
section 3.1, and `siddikui/Efficient-Macro-Micro-NAS:NetworkMix.py` for what the paper leaves open.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from facenas.errors import UserError
from facenas.spaces.base import put, whole
from facenas.spaces.settings import SpaceConfig

SEPARABLE, PLAIN = 0, 1
OPERATIONS = (SEPARABLE, PLAIN)
KERNELS = (3, 5)


@dataclass(frozen=True)
class Layer:
    """One layer as builder, counters and drawing see it; an image is `shrink` times larger than its output."""

    in_channels: int
    out_channels: int
    operation: int
    kernel: int
    stride: int
    shrink: int


@dataclass(frozen=True)
class PlainArchitecture:
    """(depth, width, operation and kernel of each layer), and what goes in and out.

    `width` is the channels of the first layer; the stem has twice as many. Raises UserError when
    the fields do not fit together.
    """

    width: int
    operations: tuple[int, ...]
    kernels: tuple[int, ...]
    in_channels: int
    num_classes: int

    kind = "plain"

    def __post_init__(self) -> None:
        fits = (
            len(self.operations) == len(self.kernels) > 0
            and self.width > 0
            and self.in_channels > 0
            and self.num_classes > 0
            and set(self.operations) <= set(OPERATIONS)
            and all(kernel > 0 and kernel % 2 for kernel in self.kernels)
        )
        if not fits:
            raise UserError(f"not a plain architecture: {self}")

    @classmethod
    def uniform(
        cls, depth: int, width: int, in_channels: int, num_classes: int, operation: int = SEPARABLE
    ) -> PlainArchitecture:
        """All layers alike, kernel 3."""
        return cls(width, (operation,) * depth, (3,) * depth, in_channels, num_classes)

    @property
    def depth(self) -> int:
        """Number of layers between stem and classifier."""
        return len(self.operations)

    def layers(self) -> Iterator[Layer]:
        """Layers in order; channels double and the stride is 2 at one third and two thirds of the depth."""
        before, channels, shrink = 2 * self.width, self.width, 1
        for i, (operation, kernel) in enumerate(zip(self.operations, self.kernels, strict=True)):
            stride = 2 if i in (self.depth // 3, 2 * self.depth // 3) else 1
            channels, shrink = channels * stride, shrink * stride
            yield Layer(before, channels, operation, kernel, stride, shrink)
            before = channels

    def count_parameters(self) -> int:
        """Exact number of parameters of the built module."""
        return _count_parameters(self)

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and the classifier for one `image_size` x `image_size` image."""
        macs = self.in_channels * 2 * self.width * 9 * image_size**2
        side = image_size
        for layer in self.layers():
            side = -(-side // layer.stride)
            macs += _weights(layer) * side**2
        return macs + self._last_channels() * self.num_classes

    def words(self) -> str:
        """What it is in a few words."""
        return f"depth {self.depth}, width {self.width}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; depth is told too, for people who read the file."""
        return {
            "kind": self.kind,
            "depth": self.depth,
            "width": self.width,
            "ops": list(self.operations),
            "kernels": list(self.kernels),
            "in_channels": self.in_channels,
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> PlainArchitecture:
        """The inverse of `to_json`; raises UserError when a field is missing or wrong."""
        ops, kernels = (whole(tree, name, several=True) for name in ("ops", "kernels"))
        names = ("width", "in_channels", "num_classes")
        width, in_channels, num_classes = (whole(tree, name)[0] for name in names)
        made = cls(width, ops, kernels, in_channels, num_classes)
        if tree.get("depth", made.depth) != made.depth:
            raise UserError(
                f"an architecture says depth {tree['depth']} but lists {made.depth} layers"
            )
        return made

    def with_width(self, width: int) -> PlainArchitecture:
        """The same network, `width` channels wide."""
        return replace(self, width=width)

    def with_operation(self, index: int, operation: int) -> PlainArchitecture:
        """The same network with another operation at layer `index`."""
        return replace(self, operations=put(self.operations, index, operation))

    def with_kernel(self, index: int, kernel: int) -> PlainArchitecture:
        """The same network with another kernel at layer `index`."""
        return replace(self, kernels=put(self.kernels, index, kernel))

    def _last_channels(self) -> int:
        return list(self.layers())[-1].out_channels


@lru_cache(maxsize=65_536)  # micro search counts the same narrow variants over and over
def _count_parameters(arch: PlainArchitecture) -> int:
    stem = arch.in_channels * 2 * arch.width * 9 + 2 * 2 * arch.width
    trunk = sum(_weights(layer) + 2 * layer.out_channels for layer in arch.layers())
    return stem + trunk + (arch._last_channels() + 1) * arch.num_classes


def _weights(layer: Layer) -> int:
    if layer.operation == PLAIN:
        return layer.in_channels * layer.out_channels * layer.kernel**2
    return layer.in_channels * (layer.kernel**2 + layer.out_channels)


@dataclass(frozen=True)
class PlainSpace:
    """All plain architectures within the bounds of `config`, for one kind of input and output."""

    config: SpaceConfig
    in_channels: int
    num_classes: int

    # What micro search offers to each layer in place of a separable 3x3.
    swap_operation = PLAIN
    swap_kernel = 5
    unit = "layer"

    def at(self, depth: int, width: int) -> PlainArchitecture:
        """All separable 3x3 at this depth and width: the networks of macro search."""
        return PlainArchitecture.uniform(depth, width, self.in_channels, self.num_classes)

    def start(self) -> PlainArchitecture:
        """Shallowest and widest: macro search grows its depth, then prunes its width."""
        return self.at(self.config.min_depth, self.config.max_width)

    def depths(self) -> range:
        """Depths from the shallowest up."""
        return range(self.config.min_depth, self.config.max_depth + 1)

    def widths(self) -> range:
        """Widths on the grid, from the widest down."""
        return range(self.config.max_width, self.config.min_width - 1, -self.config.width_step)

    def size(self, depth: int | None = None) -> int:
        """Number of networks; with `depth`, Eq. 1 of the paper: (O*K)^depth * depths * widths."""
        depths = self.depths()
        choices = len(OPERATIONS) * len(KERNELS)
        counted = depths if depth is None else [depth] * len(depths)
        return sum(int(choices**layers) for layers in counted) * len(self.widths())

    def contains(self, arch: PlainArchitecture) -> bool:
        """Whether depth, width and choices lie within the bounds (any width: micro search leaves the grid)."""
        return (
            self.config.min_depth <= arch.depth <= self.config.max_depth
            and arch.width <= self.config.max_width
            and set(arch.kernels) <= set(KERNELS)
            and (arch.in_channels, arch.num_classes) == (self.in_channels, self.num_classes)
        )

    def sample(self, rng: random.Random) -> PlainArchitecture:
        """Depth, width, operations and kernels each drawn uniformly."""
        depth = rng.randint(self.config.min_depth, self.config.max_depth)
        operations = tuple(rng.choice(OPERATIONS) for _ in range(depth))
        kernels = tuple(rng.choice(KERNELS) for _ in range(depth))
        width = rng.choice(self.widths())
        return PlainArchitecture(width, operations, kernels, self.in_channels, self.num_classes)

    def neighbours(self, arch: PlainArchitecture) -> list[PlainArchitecture]:
        """One layer more or less at the end, one width step, one operation or one kernel changed."""
        step = self.config.width_step
        widths = (arch.width - step, arch.width + step)
        bounds = range(self.config.min_width, self.config.max_width + 1)
        found = [arch.with_width(width) for width in widths if width in bounds]
        if arch.depth > self.config.min_depth:
            found.append(replace(arch, operations=arch.operations[:-1], kernels=arch.kernels[:-1]))
        if arch.depth < self.config.max_depth:
            deeper = (*arch.operations, SEPARABLE), (*arch.kernels, 3)
            found.append(replace(arch, operations=deeper[0], kernels=deeper[1]))
        for i in range(arch.depth):
            found += [arch.with_operation(i, o) for o in OPERATIONS if o != arch.operations[i]]
            found += [arch.with_kernel(i, k) for k in KERNELS if k != arch.kernels[i]]
        return found

    def mutate(self, arch: PlainArchitecture, rng: random.Random) -> PlainArchitecture:
        """One random neighbour."""
        return rng.choice(self.neighbours(arch))

    def crossover(
        self, first: PlainArchitecture, second: PlainArchitecture, rng: random.Random
    ) -> PlainArchitecture:
        """Depth and width from either parent; each layer from a parent that has it."""
        depth = rng.choice((first.depth, second.depth))
        genes = []
        for i in range(depth):
            parents = [p for p in (first, second) if i < p.depth]
            parent = rng.choice(parents)
            genes.append((parent.operations[i], parent.kernels[i]))
        operations, kernels = zip(*genes, strict=True)
        width = rng.choice((first.width, second.width))
        return replace(first, width=width, operations=operations, kernels=kernels)
