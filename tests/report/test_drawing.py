"""What a drawing shows of every kind of architecture, and numbers in words."""

from __future__ import annotations

from typing import Any

import pytest
from report_runs import cells, graph, ir, plain

from facenas.report.drawing import brief, draw, special
from facenas.report.format import amount, duration, exactly, ranges, rate, short
from facenas.report.read import read_network

ALL = [
    plain(6, 8, (3,), (3,)),
    ir(6, [1, 1, 2, 1], 2),
    cells(),
    graph(8, ["conv3"], ["se_bottleneck5", "max_pool3"]),
]
ALL.append(graph(8, ["separable3"], ["bottleneck3"], task="face"))


@pytest.mark.parametrize("tree", ALL, ids=lambda tree: tree["kind"])
@pytest.mark.parametrize("size", [16, None])
def test_every_block_is_drawn_and_told(tree: dict[str, Any], size: int | None) -> None:
    drawing = draw(read_network(tree), size)
    assert drawing is not None
    blocks = [block for frame in drawing.frames for lane in frame.lanes for block in lane]
    inner = [block for block in blocks if block.kind not in ("stem", "head")]
    wanted = len(tree.get("kernels", ())) or sum(map(len, tree.get("stages", ())))
    assert len(inner) == (wanted or 5)  # the cells have five
    assert (blocks[0].kind, blocks[-1].kind) == ("stem", "head")
    assert all(block.title for block in blocks)
    swatches = {kind.removeprefix("swatch ") for kind, _ in drawing.legend}
    assert {block.kind for block in inner} <= swatches


@pytest.mark.parametrize("depth", [1, 5, 26, 60, 100])
@pytest.mark.parametrize("width", [1, 16, 128])
def test_a_chain_is_to_scale_and_fits_the_page(depth: int, width: int) -> None:
    network = read_network(plain(depth, width))
    drawing = draw(network, 32)
    assert drawing is not None
    stem, *stages, _ = drawing.frames
    (base,) = stem.lanes[0]
    blocks = [block for frame in stages for block in frame.lanes[0]]
    for block, layer in zip(blocks, network.arch.layers(), strict=True):
        assert block.size is not None
        assert base.size is not None
        assert block.size[0] == pytest.approx(base.size[0] * layer.out_channels / (2 * width))
        assert block.size[1] == pytest.approx(base.size[1] / layer.shrink)
        assert block.size[0] >= 14
    for frame in drawing.frames:
        assert sum((b.size or (60, 0))[0] + 3 for b in frame.lanes[0]) <= 1066
    numbers = [frame.below[0] for frame in stages]
    assert numbers[-1].endswith(str(depth))


def test_words_of_a_block() -> None:
    drawing = draw(read_network(ALL[0]), 32)
    assert drawing is not None
    block = next(b for frame in drawing.frames for b in frame.lanes[0] if b.kind == "plain")
    assert (block.label, block.title) == (
        "5",
        "Layer 3: plain 5×5, 8 → 16 channels, stride 2, 16×16",
    )
    squeezed = draw(read_network(ALL[3]), 32)
    assert squeezed is not None
    told = [b.title for frame in squeezed.frames for b in frame.lanes[0]]
    expected = "5×5 bottleneck, 8 → 16 channels, 16 inside, stride 2, squeeze-and-excitation, "
    assert expected + "skip over average pooling and a 1×1 convolution" in told
    assert "3×3 max pool, 16 channels" in told


@pytest.mark.parametrize("tree", [ALL[0], ALL[2], ALL[3]], ids=lambda tree: tree["kind"])
def test_the_stem_for_large_images(tree: dict[str, Any]) -> None:
    drawing = draw(read_network({**tree, "stem_stride": 4}), 224)
    assert drawing is not None
    (stem,) = drawing.frames[0].lanes[0]
    assert "channels, stride 2, " in stem.title
    assert stem.title.endswith("max pooling, 56×56")
    assert "28×28" in str(drawing)


def test_networks_in_words() -> None:
    assert brief(read_network(plain(5, 43))) == "depth 5, width 43"
    network = read_network(plain(5, 43, (1,), (4, 5)))
    assert brief(network) == "depth 5, width 43; plain at 1; 5×5 at 4, 5"
    assert special(network) == "plain at 1; 5×5 at 4, 5"
    assert brief(read_network(ALL[1])).endswith("; separable at 4, 5; 5×5 at 5")


def test_an_unknown_kind_has_no_drawing_but_words() -> None:
    network = read_network({"kind": "mine", "size": 3, "rules": [1]})
    assert draw(network, 32) is None
    assert brief(network) == special(network) == "kind mine, size 3"
    assert "'mine' is unknown" in network.fault
    assert read_network(None).fault


def test_numbers_in_words() -> None:
    assert ranges([1, 3, 4, 5, 8, 9]) == "1, 3–5, 8, 9"
    seconds = (0.25, 59.4, 61, 3599.6, 20935, 200000)
    told = ["0.2 s", "59 s", "1 min 1 s", "1 h 0 min", "5 h 49 min", "2 d 7 h"]
    assert [duration(s) for s in seconds] == told
    numbers = (7, 999, 409714, 999600, 55342102, 12e9)
    assert [short(n).replace("\u00a0", " ") for n in numbers] == [
        "7",
        "999",
        "410 k",
        "1 M",
        "55.3 M",
        "12 G",
    ]
    assert [rate(s).replace("\u00a0", " ") for s in (0.001, 1 / 150, 1)] == [
        "0.1 %",
        "0.667 %",
        "100 %",
    ]
    costs = [
        ("latency", 2.5),
        ("memory", 512),
        ("memory", 4.2e6),
        ("energy", 0.5),
        ("macs", 1234.0),
    ]
    told = ["2.5 ms", "512 B", "4.2 MB", "0.5", "1.23 k"]
    assert [amount(*cost).replace("\u00a0", " ") for cost in costs] == told
    assert exactly("macs", 1234567.0) == "1,234,567 MACs"
