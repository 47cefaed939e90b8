"""Three-level networks: stages of blocks, each block with an operation of its own; the whole is a graph.

Source: "Neural Architecture Search for Efficient Convolutional Networks: A Multi-Objective Optimization
Approach" for the levels and the operations. What it leaves open is settled so:

* The stem is a 3x3 convolution as wide as the first stage. The first block of every stage has a stride of 2;
  that of the first stage may do without (`first_stride` 1), for images as small as those of CIFAR.
* A block that skips is no block: where the shapes agree it is left out, so that equal networks have equal
  descriptions, and where they do not agree (the first block of a stage with a stride) it is refused.
* Classification ends with the mean of all pixels and a linear layer. Faces end as in MobileFaceNets
  (arXiv 1804.07573): a 1x1 convolution to as many channels as z is long, one depthwise convolution over the
  whole map, a linear layer, and BatchNorm without parameters. The linear layer over all pixels that IR
  networks have would outweigh everything before it in networks as small as these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from facenas.errors import UserError
from facenas.spaces.base import read_fields, whole
from facenas.spaces.graph_blocks import OPERATIONS, SKIP, Place, Sketch, add_block
from facenas.spaces.graph_dag import Graph
from facenas.spaces.graph_operations import (
    WHOLE,
    Convolution,
    Embedding,
    GlobalConvolution,
    Linear,
    Mean,
    Node,
)
from facenas.spaces.ir_block import IMAGE_SIZE, check_image_size

TASKS = ("classification", "face")

Stage = tuple[str, ...]  # the operation of each block


@dataclass(frozen=True)
class GraphArchitecture:
    """Channels and blocks of each stage, and what goes in and out.

    outputs: classes, or the length of z for faces; expansion: how many times wider a bottleneck is inside.
    Raises UserError when the fields do not fit together.
    """

    task: str
    widths: tuple[int, ...]
    stages: tuple[Stage, ...]
    first_stride: int
    expansion: int
    in_channels: int
    outputs: int

    kind = "graph"

    def __post_init__(self) -> None:
        fits = (
            self.task in TASKS
            and (self.task != "face" or self.in_channels == 3)
            and len(self.widths) == len(self.stages) > 0
            and self.first_stride in (1, 2)
            and min(*self.widths, self.expansion, self.in_channels, self.outputs) > 0
            and {name for stage in self.stages for name in stage} <= {*OPERATIONS, SKIP}
        )
        if not fits:
            raise UserError(f"not a graph architecture: {self}")
        stages = tuple(self._without_skips(number) for number in range(len(self.stages)))
        object.__setattr__(self, "stages", stages)

    @property
    def embedding(self) -> int:
        """How long z is; of face networks alone."""
        return self.outputs

    @property
    def num_classes(self) -> int:
        """How many logits there are; of classification networks alone."""
        return self.outputs

    def strides(self) -> Iterator[int]:
        """Of the first block of each stage."""
        yield self.first_stride
        yield from (2 for _ in self.stages[1:])

    def graph(self) -> Graph:
        """The feature maps and what joins them."""
        return _graph(self)

    def count_parameters(self) -> int:
        """Exact number of parameters of the built module; of face networks without a classification head."""
        return _count_parameters(self)

    def head_parameters(self, identities: int) -> int:
        """Parameters of a head that tells this many identities apart: one vector each."""
        return self.outputs * identities

    def count_macs(self, image_size: int) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image (faces: 112x112)."""
        return self._sized(image_size).count_macs(image_size)

    def count_memory(self, image_size: int) -> int:
        """Bytes of weights and peak activations for one image in inference: `Graph.count_memory`."""
        return self._sized(image_size).count_memory(image_size)

    def words(self) -> str:
        """What it is in a few words."""
        blocks = "+".join(str(len(stage)) for stage in self.stages)
        return f"{blocks} blocks, {'-'.join(map(str, self.widths))} wide"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        stages = [list(stage) for stage in self.stages]
        return {"kind": self.kind, **vars(self), "widths": list(self.widths), "stages": stages}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> GraphArchitecture:
        """The inverse of `to_json`; raises UserError when a field is missing, wrong or unknown."""
        read = read_fields(tree, "an architecture of kind graph", _FIELDS)
        widths, stages = whole(read, "widths", several=True), read["stages"]
        if not all(isinstance(stage, list) and _all_names(stage) for stage in stages):
            raise UserError("an architecture's field 'stages' should list each stage's operations")
        given = {name: read[name] for name in _FIELDS if name not in ("kind", "widths", "stages")}
        return cls(widths=widths, stages=tuple(map(tuple, stages)), **given)

    def _without_skips(self, number: int) -> Stage:
        """The stage without the blocks that do nothing; raises UserError where nothing is not possible."""
        stage = self.stages[number]
        if list(self.strides())[number] == 2 and stage[:1] in ((), (SKIP,)):
            raise UserError(f"stage {number + 1} has a stride, so that it cannot begin with a skip")
        return tuple(name for name in stage if name != SKIP)

    def _sized(self, image_size: int) -> Graph:
        if self.task == "face":
            check_image_size(image_size, image_size)
        return self.graph()


def _all_names(stage: list[Any]) -> bool:
    return all(isinstance(name, str) for name in stage)


_FIELDS: dict[str, type] = {
    "kind": str,
    "task": str,
    "widths": list,
    "stages": list,
    "first_stride": int,
    "expansion": int,
    "in_channels": int,
    "outputs": int,
}


@lru_cache(maxsize=65_536)
def _count_parameters(arch: GraphArchitecture) -> int:
    return arch.graph().count_parameters()


@lru_cache(maxsize=1024)  # counters and builder ask for the same one several times
def _graph(arch: GraphArchitecture) -> Graph:
    sketch = Sketch(Node("image", arch.in_channels, 1))
    x = sketch.add("stem", sketch.image, Convolution(3, active=True), arch.widths[0], 1)
    stages = zip(arch.widths, arch.stages, arch.strides(), strict=True)
    for number, (channels, stage, stride) in enumerate(stages, start=1):
        for block, operation in enumerate(stage, start=1):
            name = f"stage{number}_block{block}"
            place = Place(name, x, channels, stride if block == 1 else 1, arch.expansion)
            x = add_block(sketch, operation, place)
    if arch.task == "face":
        _add_face_head(sketch, x, arch.outputs)
    else:
        vector = sketch.add("mean", x, Mean(), x.channels, WHOLE)
        sketch.add("classifier", vector, Linear(), arch.outputs, WHOLE)
    return sketch.graph()


def _add_face_head(sketch: Sketch, x: Node, embedding: int) -> None:
    x = sketch.add("head", x, Convolution(1, active=True), embedding, x.shrink)
    over_all = GlobalConvolution(x.side(IMAGE_SIZE))
    vector = sketch.add("pool", x, over_all, embedding, WHOLE)
    sketch.add("embedding", vector, Embedding(), embedding, WHOLE)
