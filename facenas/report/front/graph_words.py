"""The parts of a graph network in words, as its drawing tells them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from facenas.report.front.cell_words import channels, resolution
from facenas.report.wording import many
from facenas.spaces import GraphArchitecture
from facenas.spaces.base import FACE_SIZE
from facenas.spaces.graph_ops import POOLS

_BRIEF = {"avg_pool": "avg pool", "max_pool": "max pool"}
_LONG = {
    "conv": "two {} convolutions",
    "separable": "{} separable convolution",
    "bottleneck": "bottleneck with a {} depthwise convolution",
    "avg_pool": "{} average pooling",
    "max_pool": "{} max pooling",
}


@dataclass(frozen=True)
class Block:
    """A block where it lies, numbers from 1; `before`: its input's channels, `shrink`: that of its result."""

    stage: int
    number: int
    operation: str
    before: int
    channels: int
    stride: int
    shrink: int
    expansion: int

    @property
    def kind(self) -> str:
        """conv, separable, bottleneck, avg_pool or max_pool."""
        return self.operation[:-1].removeprefix("se_")

    @property
    def squeezed(self) -> bool:
        """Whether it has squeeze-and-excitation."""
        return self.operation.startswith("se_")

    @property
    def skips(self) -> bool:
        """Whether what it does is added to a shortcut."""
        return self.operation not in POOLS

    @property
    def projected(self) -> bool:
        """Whether the shape changes, so that a 1x1 convolution is on the shortcut, or behind a pool."""
        return self.stride != 1 or self.before != self.channels

    @property
    def label(self) -> str:
        """The operation with its kernel: bottleneck 3×3."""
        twice = "2 " if self.kind == "conv" else ""
        return f"{twice}{_BRIEF.get(self.kind, self.kind)} {self._side}"

    @property
    def marks(self) -> str:
        """The channels on the way: 8→32→16 ch."""
        ends = [self.before, self.channels]
        if self.kind == "bottleneck":
            ends.insert(1, self.before * self.expansion)
        alike = len(set(ends)) == 1
        return f"{'→'.join(map(str, ends[:1] if alike else ends))} ch"

    def title(self, image_size: int | None) -> str:
        """All about it in one sentence."""
        pooled = "skip over average pooling and a 1×1 convolution"
        skip = pooled if self.projected else "skip"
        facts = [
            f"Stage {self.stage}, block {self.number}: {_LONG[self.kind].format(self._side)}",
            channels(self.before, self.channels),
            f"{self.before * self.expansion} inside" if self.kind == "bottleneck" else "",
            "stride 2" if self.stride == 2 else "",
            "squeeze-and-excitation" if self.squeezed else "",
            skip if self.skips else "then a 1×1 convolution" if self.projected else "",
            resolution(image_size, self.shrink),
        ]
        return ", ".join(fact for fact in facts if fact)

    @property
    def _side(self) -> str:
        return f"{self.operation[-1]}×{self.operation[-1]}"


@dataclass(frozen=True)
class Stage:
    """A stage with its number from 1 and the `shrink` of its result; one that only skips has no block."""

    number: int
    channels: int
    stride: int
    shrink: int
    blocks: tuple[Block, ...]

    def title(self, image_size: int | None) -> str:
        """All about it in one sentence."""
        size = f"{many(self.channels, 'channel')}, {resolution(image_size, self.shrink)}"
        return f"Stage {self.number}: {many(len(self.blocks), 'block')}, {size}"

    def size(self, image_size: int | None) -> str:
        """Resolution and channels: 16×16, 24 ch."""
        return f"{resolution(image_size, self.shrink)}, {self.channels} ch"


def stages(arch: GraphArchitecture) -> Iterator[Stage]:
    """The stages in order."""
    shrink, before = 1, arch.widths[0]
    rows = zip(arch.widths, arch.strides(), arch.stages, strict=True)
    for number, (width, stride, operations) in enumerate(rows, start=1):
        shrink *= stride
        blocks = []
        for place, operation in enumerate(operations, start=1):
            step = stride if place == 1 else 1
            blocks.append(
                Block(number, place, operation, before, width, step, shrink, arch.expansion)
            )
            before = width
        yield Stage(number, width, stride, shrink, tuple(blocks))


def stem(arch: GraphArchitecture, image_size: int | None) -> tuple[str, str, str]:
    """(label, marks, title) of the stem."""
    width, side = arch.widths[0], resolution(image_size, 1)
    title = f"Stem: 3×3 convolution, {channels(arch.in_channels, width)}, {side}"
    return "stem 3×3", f"{side}, {width} ch", title


def head(arch: GraphArchitecture, last: Stage) -> Iterator[tuple[str, str, str]]:
    """(label, marks, title) of every box of the head, which follows the `last` stage."""
    out = arch.outputs
    if arch.task != "face":
        title = f"Global average pooling and a linear classifier of {out} classes"
        yield "pool, fc", f"{out} classes", title
        return
    width, side = last.channels, resolution(FACE_SIZE, last.shrink)
    title = f"Head: 1×1 convolution, {channels(width, out)}, {side}"
    yield "conv 1×1", f"{width}→{out} ch", title
    yield (
        f"depthwise {side}",
        f"{out} ch",
        f"Head: depthwise convolution over the whole map, {side}",
    )
    yield "linear", f"z of {out}", f"Head: linear layer, embedding of {many(out, 'number')}"
