"""Batched augmentation against the same steps for one image at a time, with PIL and numpy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from facenas.data.augment import Augment, Draws, Normalize
from facenas.errors import UserError
from facenas.training.recipes import Recipe

CPU = torch.device("cpu")


def image_set(size: int, channels: int, crop: int, flip: bool = True) -> SimpleNamespace:
    mean, std = (0.49, 0.48, 0.45)[:channels], (0.25, 0.24, 0.26)[:channels]
    return SimpleNamespace(image_size=size, crop_size=crop, flip=flip, mean=mean, std=std)


def one_image(pixels, draws, i, pad, crop, cutout, flip, mean, std):
    """The chain RandomCrop(padding), RandomHorizontalFlip, ToTensor, Normalize and the authors' Cutout."""
    grey = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    picture = ImageOps.expand(picture, border=pad, fill=0)
    top, left = int(draws.top[i]), int(draws.left[i])
    picture = picture.crop((left, top, left + crop, top + crop))
    if flip and draws.flip[i]:
        picture = ImageOps.mirror(picture)
    values = np.asarray(picture, dtype=np.float64).reshape(crop, crop, -1) / 255
    values = (values - np.array(mean)) / np.array(std)
    row, column, half = int(draws.cut_row[i]), int(draws.cut_column[i]), cutout // 2
    values[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0
    return values.transpose(2, 0, 1)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(8, 34),
    channels=st.sampled_from([1, 3]),
    pad=st.integers(0, 5),
    less=st.integers(0, 6),
    cutout=st.integers(0, 20),
    flip=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_per_image_chain(size, channels, pad, less, cutout, flip, seed):
    crop = max(size + 2 * pad - less, 8)
    like = image_set(size, channels, crop, flip)
    augment = Augment(Recipe(pad=pad, cutout=cutout), like, CPU)
    pixels = np.random.default_rng(seed).integers(0, 256, (5, size, size, channels), np.uint8)
    draws = augment.draw(5, torch.Generator().manual_seed(seed))
    batch = augment.apply(torch.from_numpy(pixels), draws)
    assert batch.shape == (5, channels, crop, crop)
    assert batch.dtype == torch.float32
    for i in range(5):
        plain = one_image(pixels[i], draws, i, pad, crop, cutout, flip, like.mean, like.std)
        np.testing.assert_allclose(batch[i].numpy(), plain, atol=2e-6)


def test_draws_cover_their_ranges_evenly():
    augment = Augment(Recipe(), image_set(32, 3, 32), CPU)
    draws = augment.draw(90_000, torch.Generator().manual_seed(0))
    for name, values in (("top", 9), ("left", 9), ("cut_row", 32), ("cut_column", 32)):
        share = torch.bincount(getattr(draws, name), minlength=values) / 90_000
        assert len(share) == values
        torch.testing.assert_close(share, torch.full((values,), 1 / values), atol=0.005, rtol=0)
    assert draws.flip.float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert not torch.equal(draws.top, draws.left)


def test_the_mnist_family_is_trained_at_32_from_28():
    augment = Augment(Recipe(), image_set(28, 1, 32), CPU)
    batch = augment(torch.zeros(3, 28, 28, 1, dtype=torch.uint8), torch.Generator())
    assert batch.shape == (3, 1, 32, 32)


def test_colour_batches_are_channels_last_in_memory():
    augment = Augment(Recipe(), image_set(32, 3, 32), CPU)
    batch = augment(torch.zeros(4, 32, 32, 3, dtype=torch.uint8), torch.Generator())
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_the_recipe_can_overrule_flip_and_crop():
    augment = Augment(Recipe(flip=False, crop=24), image_set(32, 3, 32), CPU)
    assert (augment.flip, augment.crop) == (False, 24)


def test_a_crop_larger_than_the_padded_image_is_refused():
    with pytest.raises(UserError, match=r"recipe\.crop 32: images of 8 pixels padded by 1 are smaller"):
        Augment(Recipe(pad=1, crop=32), image_set(8, 1, 8), CPU)


def test_normalise_alone_is_the_textbook_formula():
    pixels = torch.arange(0, 256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    values = Normalize(image_set(16, 1, 16), CPU)(pixels)
    plain = (np.arange(256).reshape(1, 1, 16, 16) / 255 - 0.49) / 0.25
    np.testing.assert_allclose(values.numpy(), plain, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_is_torchvision_s(channels):
    from torchvision.transforms import functional as F

    steps = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation
    augment = Augment(Recipe(pad=0, cutout=0, color_jitter=0.4), image_set(12, channels, 12, flip=False), CPU)
    augment.normalize = lambda images: images.permute(0, 3, 1, 2).float()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (24, 12, 12, channels), np.uint8))
    draws = augment.draw(24, torch.Generator().manual_seed(0))
    assert draws.jitter[3].unique().numel() > 3, "several orders"
    factors = 1 + 0.4 * (draws.jitter[:3] / 2**19 - 1)
    assert 0.6 <= factors.min() < 0.7
    assert 1.3 < factors.max() <= 1.4
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    found = augment.apply(pixels, Draws.of(draws.stacked()))
    for i in range(24):
        like = pixels[i].permute(2, 0, 1).float() / 255
        for step in orders[draws.jitter[3, i]]:
            like = steps[step](like, float(factors[step, i]))
        assert (found[i] - 255 * like).abs().max() < 1


def test_jitter_that_is_off_draws_nothing():
    states = []
    for recipe in (Recipe(), Recipe(color_jitter=0.0)):
        generator = torch.Generator().manual_seed(0)
        assert Augment(recipe, image_set(32, 3, 32), CPU).draw(4, generator).jitter is None
        states.append(generator.get_state())
    assert torch.equal(*states)
