"""Crops against torchvision: the same boxes from the same draws, nearly the same pixels."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image
from test_image_store import file_of
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from facenas.data.classes.crops import DRAWS, center_boxes, decode_box, decode_center, random_boxes


def one_box(height: int, width: int, draws) -> tuple[int, ...]:
    """`torchvision.transforms.RandomResizedCrop.get_params`, with these draws for its own."""
    for i in range(10):
        area = height * width * (0.08 + (1 - 0.08) * draws[i])
        log = math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * draws[10 + i]
        w, h = round(math.sqrt(area * math.exp(log))), round(math.sqrt(area / math.exp(log)))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[20] * (height - h + 1)), int(draws[21] * (width - w + 1)), h, w
    ratio, w, h = width / height, width, height
    if ratio < 3 / 4:
        h = round(w / (3 / 4))
    elif ratio > 4 / 3:
        w = round(h * (4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 2**31))
def test_boxes_are_those_of_torchvision(height, width, seed):
    draws = np.random.default_rng(seed).uniform(size=(3, DRAWS))
    sizes = np.array([[height, width], [7, 900], [900, 7]])
    for box, size, own in zip(random_boxes(sizes, draws), sizes.tolist(), draws, strict=True):
        assert tuple(box.tolist()) == one_box(*size, own)


@pytest.fixture(scope="module")
def photograph():
    """A real one, as JPEG, and its pixels as torchvision has them: (3, 427, 640)."""
    data = file_of(Image.fromarray(load_sample_image("china.jpg")), quality=90)
    return data, F.pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("box", "side", "most"),
    [((30, 50, 300, 260), 224, 3.0), ((10, 20, 90, 110), 224, 0.6), ((5, 9, 400, 420), 64, 6.0)],
)
def test_pixels_are_nearly_those_of_torchvision(photograph, box, side, most):
    data, pixels = photograph
    out = np.empty((side, side, 3), np.uint8)
    decode_box(data, tuple(pixels.shape[1:]), box, out)
    like = F.resized_crop(pixels, *box, [side, side], InterpolationMode.BILINEAR, antialias=True)
    found = torch.from_numpy(out).permute(2, 0, 1)
    assert (found.float() - like.float()).abs().mean() < most


def test_the_middle_is_what_resize_and_center_crop_give(photograph):
    data, pixels = photograph
    found = torch.from_numpy(decode_center(data, 224 / 256, 224, grey=False)).permute(2, 0, 1)
    like = F.center_crop(F.resize(pixels, [256], antialias=True), [224])
    assert (found.float() - like.float()).abs().mean() < 8
    assert center_boxes(np.array([[100, 256], [1, 9]]), 224 / 256).tolist() == [[6, 84, 88, 88], [0, 4, 1, 1]]
