"""Feature maps and what turns one into another: the nodes of a network's graph, and what its edges do.

Every operation knows its own numbers: parameters, multiply-accumulates, and how many values it holds while
it works, run one after another as PyTorch runs them in inference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

WHOLE = 0  # the `shrink` of a vector: one pixel, whatever the size of the image


@dataclass(frozen=True)
class Node:
    """A feature map; an image is `shrink` times larger, rounded up, or the map is a vector (`WHOLE`)."""

    name: str
    channels: int
    shrink: int

    def side(self, image_size: int) -> int:
        """Pixels of a side."""
        return 1 if self.shrink == WHOLE else -(-image_size // self.shrink)

    def pixels(self, image_size: int) -> int:
        """Pixels of one channel."""
        return self.side(image_size) ** 2

    def values(self, image_size: int) -> int:
        """Numbers that it holds."""
        return self.channels * self.pixels(image_size)


class Operation(ABC):
    """What an edge does between the feature maps `before` and `after`."""

    @abstractmethod
    def fits(self, before: Node, after: Node) -> bool:
        """Whether it makes a map of the shape of `after` out of one of `before`."""

    def weights(self, before: Node, after: Node) -> int:
        """Weights of its convolutions or linear layers, without biases."""
        return 0

    def count_parameters(self, before: Node, after: Node) -> int:
        """All that is trained."""
        return self.weights(before, after)

    def count_statistics(self, after: Node) -> int:
        """Running means and variances of BatchNorm."""
        return 0

    def count_macs(self, before: Node, after: Node, image_size: int) -> int:
        """Multiply-accumulates of its convolutions or linear layers for one image of this side."""
        return self.weights(before, after)

    def count_scratch(self, before: Node, after: Node, image_size: int) -> int:
        """Numbers that it holds for a while, besides its input and its result."""
        return 0


def _same_shape(before: Node, after: Node) -> bool:
    return (before.channels, before.shrink) == (after.channels, after.shrink)


@dataclass(frozen=True)
class Convolution(Operation):
    """Convolution without bias, BatchNorm, and ReLU if `active`; depthwise: each channel by itself.

    added: the result is what a block adds to its shortcut.
    """

    kernel: int
    stride: int = 1
    depthwise: bool = False
    active: bool = False
    added: bool = False

    def fits(self, before: Node, after: Node) -> bool:
        """The stride decides the side; a depthwise convolution keeps the channels."""
        return (
            before.shrink != WHOLE
            and after.shrink == before.shrink * self.stride
            and (not self.depthwise or after.channels == before.channels)
        )

    def weights(self, before: Node, after: Node) -> int:
        """kernel^2 for every pair of channels that it joins."""
        inputs = 1 if self.depthwise else before.channels
        return inputs * after.channels * self.kernel**2

    def count_parameters(self, before: Node, after: Node) -> int:
        """The weights, and two for a channel in BatchNorm."""
        return self.weights(before, after) + 2 * after.channels

    def count_statistics(self, after: Node) -> int:
        """Two for a channel."""
        return 2 * after.channels

    def count_macs(self, before: Node, after: Node, image_size: int) -> int:
        """All weights at every pixel of the result."""
        return self.weights(before, after) * after.pixels(image_size)

    def count_scratch(self, before: Node, after: Node, image_size: int) -> int:
        """The result before BatchNorm; ReLU works in place."""
        return after.values(image_size)


@dataclass(frozen=True)
class GlobalConvolution(Operation):
    """One depthwise convolution over the whole map, then BatchNorm: a mean of pixels with learnt weights.

    Source: "MobileFaceNets", arXiv 1804.07573, section 3.1. Fits images of one size alone.
    """

    kernel: int

    def fits(self, before: Node, after: Node) -> bool:
        """From a map to a vector."""
        return (
            before.shrink != WHOLE and after.shrink == WHOLE and before.channels == after.channels
        )

    def weights(self, before: Node, after: Node) -> int:
        """kernel^2 for a channel."""
        return after.channels * self.kernel**2

    def count_parameters(self, before: Node, after: Node) -> int:
        """The weights, and two for a channel in BatchNorm."""
        return self.weights(before, after) + 2 * after.channels

    def count_statistics(self, after: Node) -> int:
        """Two for a channel."""
        return 2 * after.channels

    def count_scratch(self, before: Node, after: Node, image_size: int) -> int:
        """The result before BatchNorm."""
        return after.channels


@dataclass(frozen=True)
class Pooling(Operation):
    """Mean or maximum ("avg", "max") over 3x3 pixels; what lies outside of the map does not count."""

    what: str
    stride: int = 1

    def fits(self, before: Node, after: Node) -> bool:
        """The stride decides the side, channels stay."""
        return (
            self.what in ("avg", "max")
            and before.shrink != WHOLE
            and after.shrink == before.shrink * self.stride
            and after.channels == before.channels
        )


@dataclass(frozen=True)
class Gate(Operation):
    """Squeeze-and-excitation: scales each channel by a factor that the means of all channels decide."""

    squeezed: int

    def fits(self, before: Node, after: Node) -> bool:
        """The shape stays."""
        return self.squeezed > 0 and _same_shape(before, after)

    def weights(self, before: Node, after: Node) -> int:
        """Two linear layers without bias."""
        return 2 * before.channels * self.squeezed

    def count_scratch(self, before: Node, after: Node, image_size: int) -> int:
        """Means and factors."""
        return 2 * before.channels


@dataclass(frozen=True)
class Identity(Operation):
    """The map itself: a shortcut. Takes no memory."""

    def fits(self, before: Node, after: Node) -> bool:
        """The shape stays."""
        return _same_shape(before, after)


@dataclass(frozen=True)
class Mean(Operation):
    """The mean over all pixels of a channel."""

    def fits(self, before: Node, after: Node) -> bool:
        """From a map to a vector."""
        return (
            before.shrink != WHOLE and after.shrink == WHOLE and before.channels == after.channels
        )


@dataclass(frozen=True)
class Linear(Operation):
    """A linear layer with bias over a vector."""

    def fits(self, before: Node, after: Node) -> bool:
        """From a vector to a vector."""
        return before.shrink == after.shrink == WHOLE

    def weights(self, before: Node, after: Node) -> int:
        """One for every pair."""
        return before.channels * after.channels

    def count_parameters(self, before: Node, after: Node) -> int:
        """The weights and the bias."""
        return self.weights(before, after) + after.channels


@dataclass(frozen=True)
class Embedding(Operation):
    """A linear layer without bias and a BatchNorm without parameters, as face networks end."""

    def fits(self, before: Node, after: Node) -> bool:
        """From a vector to a vector."""
        return before.shrink == after.shrink == WHOLE

    def weights(self, before: Node, after: Node) -> int:
        """One for every pair."""
        return before.channels * after.channels

    def count_statistics(self, after: Node) -> int:
        """Two for a number."""
        return 2 * after.channels

    def count_scratch(self, before: Node, after: Node, image_size: int) -> int:
        """The result before BatchNorm."""
        return after.channels
