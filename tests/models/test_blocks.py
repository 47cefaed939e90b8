"""Networks cut into blocks: nothing is lost, nothing counts twice, and what is fused stays together."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from facenas.models.blocks import blocks_of
from facenas.spaces import IR, Cells, Graph, ImageFacts, Plain, PlainArchitecture

SPACES = {
    "plain": (Plain(max_depth=12, max_width=20), ImageFacts(1, 10, 9)),
    "ir": (IR(max_depth=14, max_width=8, embedding=16, se=True), ImageFacts(3, 0, 112)),
    "cells": (Cells(max_cells=4), ImageFacts(3, 10, 16)),
    "graph": (Graph(), ImageFacts(3, 10, 16)),
    "graph of faces": (Graph(widths=(4, 8), embedding=16), ImageFacts(3, 0, 112)),
}


@pytest.mark.parametrize("name", SPACES)
def test_blocks_by_themselves_multiply_as_often_as_the_network(name):
    """The oracle is the space's own formula; each block runs on inputs of the shapes that it tells."""
    space, images = SPACES[name]
    bound = space.bind(images)
    arch = bound.sample(random.Random(3))
    blocks = blocks_of(arch, images.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for block in blocks:
            block.module()(*(torch.randn(shape) for shape in block.inputs))
    assert counter.get_total_flops() // 2 == arch.count_macs(images.image_size)


def test_a_convolution_takes_along_what_follows_it_alone():
    arch = PlainArchitecture.uniform(3, 4, 1, 10)
    told = [block.summary for block in blocks_of(arch, 8)]
    assert told[0] == "conv2d+batch_norm+relu of 1x1x8x8, weights 8x1x3x3"
    assert told[1] == "conv2d of 1x8x8x8, weights 8x1x3x3"
    assert told[-2:] == ["adaptive_avg_pool2d+flatten of 1x16x2x2", "linear of 1x16, weights 10x16"]


def test_equal_blocks_have_one_key_whatever_network_they_are_in():
    shallow, deep, larger = (
        {block.key for block in blocks_of(PlainArchitecture.uniform(depth, 4, 1, 10), size)}
        for depth, size in ((4, 8), (7, 8), (4, 12))
    )
    assert len(shallow & deep) > len(shallow) / 2
    assert len(shallow & larger) == 1  # the classifier sees a vector
