"""Architectures as what the page draws: frames of blocks in lanes, and the words beside them.

The page lays them out by CSS. The stages of a chain (plain, ir) are blocks to scale, height = resolution and
width = channels; cells and the stages of a graph are frames. Of a kind that is not known here the page shows
the fields instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from facenas.report.format import many, ranges
from facenas.report.read import Network

FACE_SIZE = 112  # the only size of images that ir networks, and graph networks of faces, take
ROW = 840.0  # what the blocks of a chain that fits into one row share
TALLEST, LOWEST, NARROWEST, WIDEST = 128.0, 14.0, 14.0, 44.0  # of a chain's blocks, in pixels

Size = tuple[float, float]  # width and height in pixels

_CONVOLUTIONS = ("separable", "plain")  # of a chain, by gene
_NO_WORDS = ("", "", "")  # as much room as a stage takes, so that all stand on one line
_SHORT = {"separable": "sep", "max_pool": "max", "avg_pool": "avg"}
_ACTIVATIONS = {"none": "", "relu": "ReLU", "silu": "SiLU", "prelu": "PReLU"}
_LEGEND = {
    "separable": "separable convolution",
    "plain": "plain convolution",
    "conv": "convolution",
    "bottleneck": "bottleneck: 1×1, depthwise, 1×1",
    "pool": "pooling",
    "identity": "identity",
    "stem": "stem and head",
}


@dataclass(frozen=True)
class Block:
    """A box; `skip` leads around it, `projected`: over a 1x1 convolution. size: (width, height) to scale."""

    kind: str
    label: str
    marks: str = ""
    title: str = ""
    skip: bool = False
    projected: bool = False
    squeezed: bool = False
    size: Size | None = None


@dataclass(frozen=True)
class Frame:
    """Blocks in parallel lanes, with words above and below; `bare`: without an outline, as stem and head.

    merge: add or concat, where several lanes meet; projections: for each lane, or for all that is joined, what
    the 1x1 convolution does there, or nothing. role: down or up where the resolution is halved or doubled.
    """

    lanes: Sequence[Sequence[Block]]
    below: Sequence[str] = ()
    above: str = ""
    title: str = ""
    merge: str = ""
    projections: Sequence[str] = ()
    role: str = ""
    bare: bool = False


@dataclass(frozen=True)
class Drawing:
    """Frames from left to right, and the legend: (class of a swatch, words)."""

    frames: Sequence[Frame]
    legend: Sequence[tuple[str, str]]


def draw(network: Network, image_size: int | None) -> Drawing | None:
    """The drawing for square images of `image_size` pixels (None: resolutions as fractions); None for a kind
    that only its own package knows.
    """
    draws = {"plain": _plain, "ir": _ir, "cells": _cells, "graph": _graph}.get(network.kind)
    if network.arch is None or draws is None:
        return None
    frames = list(draws(network.arch, image_size))
    return Drawing(frames, list(_legend(frames)))


def brief(network: Network) -> str:
    """The network in a few words."""
    words = special(network)
    return network.summary if words in ("", network.summary) else f"{network.summary}; {words}"


def special(network: Network) -> str:
    """What a table says beside depth and width: a chain's blocks that are not as usual, counted from 1; else
    the summary. Macro search builds separable layers of 3x3, of faces plain blocks.
    """
    if network.arch is None or network.kind not in ("plain", "ir"):
        return network.summary
    usual, caption = network.kind == "ir", list[str]()
    if at := [n for n, gene in enumerate(network.arch.operations, start=1) if gene != usual]:
        caption.append(f"{_CONVOLUTIONS[not usual]} at {ranges(at)}")
    for kernel in sorted(set(network.arch.kernels) - {3}):
        at = [n for n, k in enumerate(network.arch.kernels, start=1) if k == kernel]
        caption.append(f"{kernel}×{kernel} at {ranges(at)}")
    return "; ".join(caption)


def _plain(arch: Any, image_size: int | None) -> Iterator[Frame]:
    yield from _chain(arch, "Layer", arch.layers(), 2 * arch.width, image_size)
    yield _bare(_classifier(arch.num_classes), below=_NO_WORDS)


def _ir(arch: Any, _: int | None) -> Iterator[Frame]:
    yield from _chain(arch, "Block", arch.blocks(), arch.width, FACE_SIZE)
    title = f"Linear layer: 7×7, {8 * arch.width} channels → embedding"
    yield _bare(Block("head", "linear", f"z of {arch.embedding}", title), below=_NO_WORDS)


def _chain(arch: Any, unit: str, blocks: Iterable[Any], stem: int, image_size: int | None) -> Iterator[Frame]:
    """Stem and stages: blocks of one resolution side by side, a row of the page at most."""
    blocks = list(blocks)
    share = ROW / (stem + sum(b.out_channels for b in blocks))
    channel = min(WIDEST / arch.width, max(NARROWEST / arch.width, share))  # pixels
    side, size = _side(image_size, arch.stem_stride), (channel * stem, TALLEST)
    yield _bare(_stem(arch, stem, _pooled(arch, side), "3", size=size), below=("stem", side, f"{stem} ch"))
    numbered = enumerate(blocks, start=1)
    for (shrink, width), group in groupby(numbered, lambda b: (b[1].shrink, b[1].out_channels)):
        height = max(TALLEST * arch.stem_stride / shrink, LOWEST)
        side, size = _side(image_size, shrink), (channel * width, height)
        stage, most = list(group), max(1, int(1060 / (size[0] + 3)))
        for part in (stage[at : at + most] for at in range(0, len(stage), most)):
            drawn = [_chain_block(f"{unit} {n}", b, side, size) for n, b in part]
            yield _bare(*drawn, below=(ranges([n for n, _ in part]), side, f"{width} ch"))


def _chain_block(name: str, block: Any, side: str, size: Size) -> Block:
    kind, squeezed = _CONVOLUTIONS[block.operation], bool(getattr(block, "squeezed", 0))
    title = _joined(
        f"{name}: {kind} {block.kernel}×{block.kernel}",
        f"{block.in_channels} → {block.out_channels} channels, stride {block.stride}, {side}",
        "squeeze-and-excitation" * squeezed,
        "projected shortcut" * getattr(block, "projected", False),
    )
    return Block(kind, str(block.kernel), title=title, squeezed=squeezed, size=size)


def _cells(arch: Any, image_size: int | None) -> Iterator[Frame]:
    side = f"BatchNorm, ReLU, {_pooled(arch, _side(image_size, arch.stem_stride))}"
    yield _bare(_stem(arch, arch.stem, side, "stem 3×3", f"{arch.stem} ch"))
    for number, placed in enumerate(arch.placed(), start=1):
        cell, side = placed.cell, _side(image_size, placed.shrink)
        caption = f"{_channels(placed.in_channels, cell.channels)}, {side}"
        widths = [f"{end} → {cell.channels}" * (end != cell.channels) for end in placed.ends]
        yield Frame(
            lanes=[[_cell_block(block) for block in pipeline] for pipeline in placed.pipelines],
            below=(f"{side}, {cell.channels} ch",),
            above=f"{number} {cell.role}",
            title=f"Cell {number}, {cell.role}: {caption}, {many(len(placed.pipelines), 'pipeline')}",
            merge=cell.merge if len(placed.pipelines) > 1 else "",
            projections=[w and f"Projection: 1×1 convolution, {w} channels" for w in widths],
            role=cell.role,
        )
    yield _bare(_classifier(arch.num_classes))


def _cell_block(placed: Any) -> Block:
    block = placed.block
    what, kernel = block.operation, f"{block.kernel}×{block.kernel}"
    marks = " ".join(filter(None, ["BN" * block.batch_norm, _ACTIVATIONS[block.activation]]))
    title = _joined(
        what if what == "identity" else f"{kernel} {what.replace('_', ' ')}",
        _channels(placed.in_channels, placed.out_channels),
        f"stride {placed.stride}" if placed.stride > 1 else "",
        marks,
        "skip over a 1×1 convolution" if placed.projected else "skip" * block.skip,
    )
    label = what if what == "identity" else f"{_SHORT.get(what, what)} {kernel}"
    kind = "pool" if what.endswith("pool") else what
    return Block(kind, label, marks, title, block.skip, placed.projected)


def _graph(arch: Any, image_size: int | None) -> Iterator[Frame]:
    before, shrink, side = arch.widths[0], arch.stem_stride, _side(image_size, arch.stem_stride)
    yield _bare(_stem(arch, before, _pooled(arch, side), "stem 3×3", f"{side}, {before} ch"))
    rows = zip(arch.widths, arch.strides(), arch.stages, strict=True)
    for number, (width, stride, operations) in enumerate(rows, start=1):
        shrink, role, blocks = shrink * stride, "down" * (stride == 2), list[Block]()
        for name in operations:
            blocks.append(_graph_block(name, before, stride, width, arch.expansion))
            before, stride = width, 1
        caption = f"{_side(image_size, shrink)}, {width} ch"
        above = f"stage {number}" + ("" if blocks else ", no block")
        title = f"Stage {number}: {many(len(blocks), 'block')}, {caption}"
        yield Frame([blocks], (caption,), above, title, role=role)
    if arch.task != "face":
        yield _bare(_classifier(arch.outputs))
        return
    out, side = arch.outputs, _side(FACE_SIZE, shrink)
    yield _bare(
        Block("head", "conv 1×1", f"{before}→{out} ch", f"Head: 1×1 convolution, {side}"),
        Block("head", f"depthwise {side}", f"{out} ch", "Head: depthwise over the whole map"),
        Block("head", "linear", f"z of {out}", "Head: linear layer to the embedding"),
    )


def _graph_block(operation: str, before: int, stride: int, width: int, expansion: int) -> Block:
    squeezed, kernel = operation.startswith("se_"), f"{operation[-1]}×{operation[-1]}"
    what = operation[:-1].removeprefix("se_")
    pool, projected = what.endswith("pool"), stride != 1 or before != width
    inside = [before * expansion] if what == "bottleneck" else []
    widths = [before, *inside, width] if inside or before != width else [width]
    behind = "then a 1×1 convolution" if pool else "skip over average pooling and a 1×1 convolution"
    title = _joined(
        f"{'two ' if what == 'conv' else ''}{kernel} {what.replace('_', ' ')}",
        _channels(before, width),
        f"{inside[0]} inside" if inside else "",
        f"stride {stride}" if stride > 1 else "",
        "squeeze-and-excitation" * squeezed,
        behind if projected else "" if pool else "skip",
    )
    label = f"{'2 ' if what == 'conv' else ''}{what.replace('_', ' ')} {kernel}"
    marks = f"{'→'.join(map(str, widths))} ch"
    return Block("pool" if pool else what, label, marks, title, not pool, projected, squeezed)


def _bare(*blocks: Block, below: Sequence[str] = ()) -> Frame:
    return Frame([blocks], below, bare=True)


def _stem(arch: Any, width: int, side: str, label: str, marks: str = "", size: Size | None = None) -> Block:
    title = _joined(
        f"Stem: 3×3 convolution, {_channels(arch.in_channels, width)}",
        f"stride {min(2, arch.stem_stride)}" if arch.stem_stride > 1 else "",
        side,
    )
    return Block("stem", label, marks, title, size=size)


def _pooled(arch: Any, side: str) -> str:
    """The side of what a stem gives, and how it comes to be that small."""
    return f"max pooling, {side}" if arch.stem_stride > 2 else side


def _classifier(classes: int) -> Block:
    title = f"Global average pooling and a linear classifier of {classes} classes"
    return Block("head", "pool, fc", f"{classes} classes", title)


def _joined(*facts: str) -> str:
    return ", ".join(fact for fact in facts if fact)


def _channels(before: int, after: int) -> str:
    return f"{before} → {after} channels" if before != after else many(after, "channel")


def _side(image_size: int | None, shrink: int) -> str:
    """The side of a map behind `shrink`; strides round up, as the convolutions do."""
    if image_size is None:
        return "full size" if shrink == 1 else f"1/{shrink} size"
    side = -(-image_size // shrink)
    return f"{side}×{side}"


def _legend(frames: Sequence[Frame]) -> Iterator[tuple[str, str]]:
    blocks = [block for frame in frames for lane in frame.lanes for block in lane]
    kinds, merges = {block.kind for block in blocks}, {frame.merge for frame in frames}
    yield from ((f"swatch {kind}", words) for kind, words in _LEGEND.items() if kind in kinds)
    if any(block.squeezed for block in blocks):
        yield "swatch squeezed plain", "squeeze-and-excitation"
    if any(block.skip for block in blocks):
        yield "", "⌒ skip, dashed with a 1×1 convolution"
    merged = {"add": "+ lanes added", "concat": "≡ lanes concatenated"}
    yield from (("", words) for merge, words in merged.items() if merge in merges)
    if any(any(frame.projections) for frame in frames):
        yield "swatch projection", "1×1 projection"
    scaled = any(block.size for block in blocks)
    scale = "height: resolution; width: channels; number: kernel"
    yield "", scale if scaled else "frame: narrows where the resolution is halved"
