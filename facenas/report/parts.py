"""A network as the parts of its drawing: what each is, how large, and the words beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from facenas.report.describing import Chain
from facenas.report.wording import many
from facenas.spaces import IRArchitecture, PlainArchitecture
from facenas.spaces.base import FACE_SIZE
from facenas.spaces.ir import LAST_SIZE, Block
from facenas.spaces.plain import PLAIN

LETTER = 7.0  # width of a caption's letter, on average


@dataclass(frozen=True)
class Part:
    """A box before it has a place; `relative_width` in widths of the network, 0 for the head.

    kind: stem, plain, separable or head. room: the least width it takes, so that captions do not touch.
    """

    kind: str
    label: str
    title: str
    caption: tuple[str, ...]
    number: int
    relative_width: float
    shrink: int
    room: float = 0.0
    squeezed: bool = False


def parts(arch: Chain, image_size: int | None) -> Iterator[Part]:
    """From stem to head, for square images of `image_size` pixels (None: resolutions as fractions)."""
    return _ir_parts(arch) if isinstance(arch, IRArchitecture) else _plain_parts(arch, image_size)


def _plain_parts(arch: PlainArchitecture, image_size: int | None) -> Iterator[Part]:
    side = _side(image_size, 1)
    stem = 2 * arch.width
    title = f"Stem: 3×3 convolution, {arch.in_channels} → {stem} channels, {side}"
    yield Part("stem", "3", title, ("stem", side, f"{stem} ch"), 0, 2.0, 1)
    for number, layer in enumerate(arch.layers(), start=1):
        side = _side(image_size, layer.shrink)
        kind = _kind(layer.operation)
        title = (
            f"Layer {number}: {kind} {layer.kernel}×{layer.kernel}, "
            f"{layer.in_channels} → {layer.out_channels} channels, stride {layer.stride}, {side}"
        )
        caption = ("units", side, f"{layer.out_channels} ch")
        width = layer.out_channels / arch.width
        yield Part(kind, str(layer.kernel), title, caption, number, width, layer.shrink)
    title = f"Global average pooling and a linear classifier of {arch.num_classes} classes"
    caption = ("pool", f"{arch.num_classes}", "classes")
    yield Part("head", "fc", title, caption, arch.depth + 1, 0, 1)


def _ir_parts(arch: IRArchitecture) -> Iterator[Part]:
    side = _side(FACE_SIZE, 1)
    title = f"Stem: 3×3 convolution, {arch.in_channels} → {arch.width} channels, {side}"
    caption: tuple[str, ...] = ("stem", side, f"{arch.width} ch")
    yield Part("stem", "3", title, caption, 0, 1.0, 1, _room(caption))
    stages = [count for count in arch.stages for _ in range(count)]
    for number, (block, count) in enumerate(zip(arch.blocks(), stages, strict=True), start=1):
        caption = ("units", _side(FACE_SIZE, block.shrink), f"{block.out_channels} ch")
        yield Part(
            _kind(block.operation),
            str(block.kernel),
            _title(number, block),
            caption,
            number,
            block.out_channels / arch.width,
            block.shrink,
            _room(caption) / count,
            bool(block.squeezed),
        )
    last = _side(LAST_SIZE, 1)
    title = f"Linear layer: {last}, {8 * arch.width} channels → embedding of {many(arch.embedding, 'number')}"
    yield Part("head", "fc", title, ("output", f"{arch.embedding}-d"), number + 1, 0, 1)


def _title(number: int, block: Block) -> str:
    kernel = f"{block.kernel}×{block.kernel}"
    facts = [
        f"Block {number}: two {_kind(block.operation)} {kernel} convolutions",
        f"{block.in_channels} → {block.out_channels} channels, stride {block.stride}",
        _side(FACE_SIZE, block.shrink),
        "squeeze-and-excitation" if block.squeezed else "",
        "projected shortcut" if block.projected else "",
    ]
    return ", ".join(fact for fact in facts if fact)


def _kind(operation: int) -> str:
    return "plain" if operation == PLAIN else "separable"


def _room(caption: tuple[str, ...]) -> float:
    return LETTER * max(map(len, caption)) + 8


def _side(image_size: int | None, shrink: int) -> str:
    """The resolution behind `shrink`; strides round up, as the convolutions do."""
    if image_size is None:
        return "full size" if shrink == 1 else f"1/{shrink} size"
    side = -(-image_size // shrink)
    return f"{side}×{side}"
