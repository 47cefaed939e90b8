"""The classification space of macro-micro search: a plain chain of convolutions.

No skips, no fully connected trunk, and no pooling but in the stem for images of 128 pixels or more. Source:
"Efficient Global Neural Architecture Search", section 3.1, and
`siddikui/Efficient-Macro-Micro-NAS:NetworkMix.py` for what the paper leaves open.
`Chain` and `ChainSpace` are what this space shares with the face space (`facenas.spaces.ir`).
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from facenas.config import Config
from facenas.errors import UserError
from facenas.spaces.base import (
    ADDED,
    SPACES,
    STEM_STRIDES,
    Architecture,
    ImageFacts,
    SearchSpace,
    replaced,
)

SEPARABLE, PLAIN = 0, 1
OPERATIONS = (SEPARABLE, PLAIN)
KERNELS = (3, 5)

Gene = tuple[int, int]  # operation and kernel of a layer, or block


class Chain(Architecture):
    """A network of one width and of layers, or blocks, that each choose an operation and a kernel."""

    width: int
    operations: tuple[int, ...]
    kernels: tuple[int, ...]
    stem_stride: int = 1  # by how much the stem divides the side of an image
    # In these a larger network differs.
    sizes: ClassVar[tuple[str, ...]] = ("width", "operations", "kernels")

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of layers."""

    @abstractmethod
    def _count_parameters(self) -> int: ...

    @abstractmethod
    def _stages(self) -> tuple[int, ...]:
        """How many layers, or blocks, have the same channels: all but the first of a stage keep them."""

    def count_parameters(self) -> int:
        """Exact number of parameters of the built module; of face networks without a classification head."""
        return _counted(self)

    def summary(self) -> str:
        """What it is in a few words."""
        return f"depth {self.depth}, width {self.width}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; depth is told too, for people who read the file."""
        tree = super().to_json()
        return {"kind": tree.pop("kind"), "depth": self.depth, **tree}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """The inverse of `to_json`; raises UserError when a field is missing or wrong."""
        made = super().from_json(tree)
        if tree.get("depth", made.depth) != made.depth:
            raise UserError(
                f"an architecture says depth {tree['depth']}, but what it lists has {made.depth} layers"
            )
        return made

    def with_width(self, width: int) -> Self:
        """The same network, `width` channels wide."""
        return self._with(width=width)

    def with_operation(self, index: int, operation: int) -> Self:
        """The same network with another operation in layer, or block, `index`."""
        return self._with(operations=replaced(self.operations, index, operation))

    def with_kernel(self, index: int, kernel: int) -> Self:
        """The same network with another kernel in layer, or block, `index`."""
        return self._with(kernels=replaced(self.kernels, index, kernel))

    def by_stage(self) -> list[list[Gene]]:
        """Operation and kernel of each layer, or block, of each stage."""
        genes = zip(self.operations, self.kernels, strict=True)
        return [list(islice(genes, count)) for count in self._stages()]

    def extends(self, smaller: Architecture) -> bool:
        """Whether it is deeper, wider, has larger kernels, or plain convolutions in place of separable ones."""
        return self != smaller and bool(self.origins(smaller))

    def origins(self, smaller: Architecture) -> list[int | None]:
        """For each layer, or block, the number of the one in `smaller` that it begins as; None: the identity.

        In every stage the first begins as the first, the others as far behind as they fit. Empty where the
        network cannot compute what `smaller` does.
        """
        if not isinstance(smaller, type(self)) or smaller.width > self.width:
            return []
        if self != smaller._with(**{name: getattr(self, name) for name in self.sizes}):
            return []
        found: list[int | None] = []
        start = 0
        for ours, theirs in zip(self.by_stage(), smaller.by_stage(), strict=True):
            if (placed := _placed(ours, theirs)) is None:
                return []
            found += [None if number is None else start + number for number in placed]
            start += len(theirs)
        return found

    def _with(self, **changes: Any) -> Self:
        this: Any = self  # a dataclass, as all subclasses are
        changed: Self = replace(this, **changes)
        return changed

    def _choices_fit(self, count: int) -> bool:
        """Whether there are operations and kernels for `count` layers, or blocks."""
        return (
            len(self.operations) == len(self.kernels) == count > 0
            and self.width > 0
            and set(self.operations) <= set(OPERATIONS)
            and all(kernel > 0 and kernel % 2 for kernel in self.kernels)
        )


def _placed(ours: list[Gene], theirs: list[Gene]) -> list[int | None] | None:
    """`Chain.origins` within a stage; None where it cannot be."""
    if not (ours and theirs):
        return None if ours or theirs else []
    found: list[int | None] = [None] * len(ours)
    left = len(theirs)
    for place in range(len(ours) - 1, 0, -1):
        if left > 1 and _covers(ours[place], theirs[left - 1]):
            found[place] = left = left - 1
    found[0] = 0
    return found if left == 1 and _covers(ours[0], theirs[0]) else None


def _covers(larger: Gene, smaller: Gene) -> bool:
    """A plain convolution can do what a separable one does, a kernel of 5 what one of 3 does in its middle."""
    return larger[0] >= smaller[0] and larger[1] >= smaller[1]


@lru_cache(maxsize=65_536)  # micro search counts the same narrow variants over and over
def _counted(arch: Chain) -> int:
    return arch._count_parameters()


C = TypeVar("C", bound=Chain)


class Bounds(Config):
    """Bounds of a space of chains; widths are channels of its first layer, or first stage."""

    min_depth: int = Field(10, ge=1, le=10_000)  # a network of so many layers is described in full
    max_depth: int = Field(100, ge=1, le=10_000)
    min_width: int = Field(16, ge=1, le=100_000)
    max_width: int = Field(64, ge=1, le=100_000)
    width_step: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_depth > self.max_depth or self.min_width > self.max_width:
            raise ValueError("a minimum is above its maximum")
        return self


class ChainSpace(SearchSpace[C]):
    """All chains within bounds of depth and width: what macro-micro search works on.

    unit: what people call a part of the chain.
    """

    unit: str

    @property
    @abstractmethod
    def swap_operation(self) -> int:
        """What micro search offers to each `unit` in place of what macro search uses."""

    @property
    def swap_kernel(self) -> int:
        """The same of kernels."""
        return 5

    @abstractmethod
    def at(self, depth: int, width: int) -> C:
        """The network of macro search, all layers alike, at this depth and width."""

    @abstractmethod
    def _resized(self, arch: C, depth: int) -> C:
        """The same choices at another depth; a layer that is new is as macro search has it."""

    def start(self) -> C:
        """Shallowest and widest: macro search grows its depth, then prunes its width."""
        return self.at(self.settings.min_depth, self.settings.max_width)

    def depths(self) -> range:
        """Depths from the shallowest up."""
        return range(self.settings.min_depth, self.settings.max_depth + 1)

    def widths(self) -> range:
        """Widths on the grid, from the widest down."""
        return range(self.settings.max_width, self.settings.min_width - 1, -self.settings.width_step)

    def mutate(self, arch: C, rng: random.Random) -> C:
        """One layer, or block, more or less, one width step, one operation or one kernel changed."""
        step, grow = self.settings.width_step, self.depths().step
        allowed = range(self.settings.min_width, self.settings.max_width + 1)
        found = [arch.with_width(w) for w in (arch.width - step, arch.width + step) if w in allowed]
        depths = (arch.depth - grow, arch.depth + grow)
        found += [self._resized(arch, depth) for depth in depths if depth in self.depths()]
        for i, (operation, kernel) in enumerate(zip(arch.operations, arch.kernels, strict=True)):
            found += [arch.with_operation(i, other) for other in OPERATIONS if other != operation]
            found += [arch.with_kernel(i, other) for other in KERNELS if other != kernel]
        return rng.choice(found)


@dataclass(frozen=True)
class Layer:
    """One layer as builder, counters and drawing see it; an image is `shrink` times larger than its output."""

    in_channels: int
    out_channels: int
    operation: int
    kernel: int
    stride: int
    shrink: int

    def weights(self) -> int:
        """Weights of its convolutions, which have no bias."""
        if self.operation == PLAIN:
            return self.in_channels * self.out_channels * self.kernel**2
        return self.in_channels * (self.kernel**2 + self.out_channels)


@dataclass(frozen=True)
class PlainArchitecture(Chain):
    """(depth, width, operation and kernel of each layer), and what goes in and out.

    `width` is the channels of the first layer; the stem has twice as many. Its convolution has a stride of at
    most 2, max pooling over 2x2 pixels does the rest of `stem_stride`: so weights fit images of any size. (The
    stem of ResNet pools 3x3, arXiv 1512.03385, table 1.) Raises UserError when the fields do not fit together.
    """

    width: int
    operations: tuple[int, ...] = field(metadata={"json": "ops"})
    kernels: tuple[int, ...]
    in_channels: int
    num_classes: int
    stem_stride: int = field(default=1, metadata=ADDED)

    def __post_init__(self) -> None:
        fits = self._choices_fit(len(self.operations)) and self.stem_stride in STEM_STRIDES
        if not fits or min(self.in_channels, self.num_classes) < 1:
            raise UserError(f"not a plain architecture: {self}")

    @classmethod
    def uniform(
        cls,
        depth: int,
        width: int,
        in_channels: int,
        num_classes: int,
        operation: int = SEPARABLE,
        kernel: int = 3,
    ) -> PlainArchitecture:
        """All layers alike."""
        return cls(width, (operation,) * depth, (kernel,) * depth, in_channels, num_classes)

    @property
    def depth(self) -> int:
        """Number of layers between stem and classifier."""
        return len(self.operations)

    def _stages(self) -> tuple[int, ...]:
        first, second = self.depth // 3, 2 * self.depth // 3
        return first, second - first, self.depth - second

    def origins(self, smaller: Architecture) -> list[int | None]:
        """As of all chains; behind the last layer comes no ReLU, so it alone cannot begin as the identity."""
        found = super().origins(smaller)
        return found if found and found[-1] is not None else []

    def layers(self) -> Iterator[Layer]:
        """Layers in order; channels double and the stride is 2 at one third and two thirds of the depth."""
        before, channels, shrink = 2 * self.width, self.width, self.stem_stride
        for i, (operation, kernel) in enumerate(zip(self.operations, self.kernels, strict=True)):
            stride = 2 if i in (self.depth // 3, 2 * self.depth // 3) else 1
            channels, shrink = channels * stride, shrink * stride
            yield Layer(before, channels, operation, kernel, stride, shrink)
            before = channels

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and the classifier for one `image_size` x `image_size` image."""
        layers = list(self.layers())
        macs = self.in_channels * 2 * self.width * 9 * (-(-image_size // min(2, self.stem_stride))) ** 2
        # Each halving rounds up, so the side is the image's divided by all strides at once, rounded up.
        macs += sum(layer.weights() * (-(-image_size // layer.shrink)) ** 2 for layer in layers)
        return macs + layers[-1].out_channels * self.num_classes

    def adapted(self, images: ImageFacts) -> Self:
        """The same layers for other images: their channels, their classes, a stem for their size."""
        ends = replace(self, in_channels=images.in_channels, num_classes=images.num_classes)
        return replace(ends, stem_stride=images.stem_stride)

    def _count_parameters(self) -> int:
        layers = list(self.layers())
        stem = self.in_channels * 2 * self.width * 9 + 2 * 2 * self.width
        trunk = sum(layer.weights() + 2 * layer.out_channels for layer in layers)
        return stem + trunk + (layers[-1].out_channels + 1) * self.num_classes


@SPACES.register("plain")
class Plain(ChainSpace[PlainArchitecture]):
    """All plain architectures within the bounds, for one kind of input and output."""

    class Settings(Bounds):
        """Bounds of the classification space (`facenas.spaces.plain`).

        operation, kernel: of all layers in macro search, from which micro search departs.
        """

        operation: Literal["separable", "plain"] = "separable"
        kernel: int = Field(3, ge=1, le=15)

        @field_validator("kernel")
        @classmethod
        def _odd(cls, value: int) -> int:
            if value % 2 == 0:
                raise ValueError("is even; a kernel has a middle")
            return value

    Architecture = PlainArchitecture
    settings: Settings

    unit = "layer"

    @property
    def swap_operation(self) -> int:
        """The other one."""
        return SEPARABLE if self._start[0] == PLAIN else PLAIN

    @property
    def swap_kernel(self) -> int:
        """5, and 3 in place of that."""
        return 3 if self.settings.kernel == 5 else 5

    @property
    def _start(self) -> Gene:
        """Of each layer in macro search."""
        return PLAIN if self.settings.operation == "plain" else SEPARABLE, self.settings.kernel

    def at(self, depth: int, width: int) -> PlainArchitecture:
        """All layers alike, separable 3x3 unless set otherwise: the networks of macro search."""
        images = self.images
        found = PlainArchitecture.uniform(depth, width, images.in_channels, images.num_classes, *self._start)
        return found.adapted(images)

    def sample(self, rng: random.Random) -> PlainArchitecture:
        """Depth, width, operations and kernels each drawn uniformly."""
        depth = rng.randint(self.settings.min_depth, self.settings.max_depth)
        operations = tuple(rng.choice(OPERATIONS) for _ in range(depth))
        kernels = tuple(rng.choice(KERNELS) for _ in range(depth))
        width = rng.choice(self.widths())
        return replace(self.at(depth, width), operations=operations, kernels=kernels)

    def crossover(
        self, first: PlainArchitecture, second: PlainArchitecture, rng: random.Random
    ) -> PlainArchitecture:
        """Depth and width from either parent; each layer from a parent that has it."""
        depth = rng.choice((first.depth, second.depth))
        parents = [rng.choice([p for p in (first, second) if i < p.depth]) for i in range(depth)]
        operations = tuple(parent.operations[i] for i, parent in enumerate(parents))
        kernels = tuple(parent.kernels[i] for i, parent in enumerate(parents))
        width = rng.choice((first.width, second.width))
        return replace(first, width=width, operations=operations, kernels=kernels)

    def _resized(self, arch: PlainArchitecture, depth: int) -> PlainArchitecture:
        (operation, kernel), new = self._start, depth - arch.depth
        operations = (*arch.operations[:depth], *(operation,) * new)
        return replace(arch, operations=operations, kernels=(*arch.kernels[:depth], *(kernel,) * new))
