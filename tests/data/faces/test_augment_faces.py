"""Batched augmentations against AdaFace's chain restated for one Pillow image at a time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms import functional as F

from facenas.data.faces.augment import INTERPOLATIONS, ORDERS, FaceAugment, draw_boxes

EVERYTHING = FaceAugment(1.0, 1.0, 1.0, flip=True)
STEPS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


def faces(count: int, seed: int = 0) -> np.ndarray:
    """Smooth pictures, and for one in four, noise, which is harder to resample alike."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)
    for image in found[: count * 3 // 4]:
        shapes = cv2.resize(rng.uniform(-30, 285, (9, 9, 3)), (112, 112), interpolation=cv2.INTER_CUBIC)
        image[:] = np.clip(shapes + rng.normal(0, 3, shapes.shape), 0, 255)
    return found


def cropped(picture: Image.Image, draws, i: int) -> Image.Image:
    top, left, height, width = (int(x[i]) for x in (draws.top, draws.left, draws.height, draws.width))
    canvas = Image.new("RGB", picture.size)
    canvas.paste(F.crop(picture, top, left, height, width), (left, top))
    return canvas


def low_resolution(picture: Image.Image, draws, i: int) -> Image.Image:
    side = int(draws.side[i])
    down, up = INTERPOLATIONS[draws.down[i]], INTERPOLATIONS[draws.up[i]]
    small = cv2.resize(np.array(picture), (side, side), interpolation=down)
    return Image.fromarray(cv2.resize(small, (112, 112), interpolation=up))


def photometric(picture: Image.Image, draws, i: int) -> Image.Image:
    factors = (draws.brightness[i], draws.contrast[i], draws.saturation[i])
    for step in ORDERS[draws.order[i]]:
        picture = STEPS[step](picture, float(factors[step]))
    return picture


def differences(augment: FaceAugment, steps: dict, count: int, seed: int) -> np.ndarray:
    """(count, ...) absolute differences to the chain of `steps` (name of a draw -> function)."""
    images = faces(count, seed)
    draws = augment.draw(count, np.random.default_rng(seed))
    expected = []
    for i, image in enumerate(images):
        picture = Image.fromarray(image)
        for name, step in steps.items():
            picture = step(picture, draws, i) if getattr(draws, name)[i] else picture
        expected.append(np.asarray(picture))
    changed = augment.apply(images, draws)
    assert changed is images
    return np.abs(changed.astype(int) - np.stack(expected))


def test_crop_and_flip_are_exact():
    steps = {"crop": cropped, "flip": lambda picture, draws, i: ImageOps.mirror(picture)}
    assert differences(FaceAugment(1.0, 0.0, 0.0, flip=True), steps, 200, seed=1).max() == 0


def test_low_resolution_is_within_two_grey_levels():
    found = differences(FaceAugment(0.0, 1.0, 0.0, flip=False), {"low_res": low_resolution}, 600, seed=2)
    assert found.max() <= 2
    assert (found > 0).mean() < 0.05


def test_photometric_is_pillows_but_for_rare_roundings():
    found = differences(FaceAugment(0.0, 0.0, 1.0, flip=False), {"photometric": photometric}, 600, seed=3)
    assert found.max() <= 3
    assert (found > 2).mean() < 1e-4
    assert (found == 0).mean() > 0.99


def test_all_steps_in_the_order_of_the_original():
    steps = {"crop": cropped, "low_res": low_resolution, "photometric": photometric}
    steps["flip"] = lambda picture, draws, i: ImageOps.mirror(picture)
    found = differences(FaceAugment(0.5, 0.5, 0.5, flip=True), steps, 300, seed=4)
    assert found.max() <= 6  # the factors enlarge what resampling differs by
    assert found.mean() < 0.02


def test_nothing_chosen_changes_nothing():
    images = faces(8)
    augment = FaceAugment(0.0, 0.0, 0.0, flip=False)
    draws = augment.draw(8, np.random.default_rng(0))
    np.testing.assert_array_equal(augment.apply(images.copy(), draws), images)


def test_boxes_are_drawn_as_by_torchvision():
    torch.manual_seed(0)
    picture = Image.new("RGB", (112, 112))
    count = 4000
    theirs = np.array([RandomResizedCrop.get_params(picture, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    ours = np.stack(draw_boxes(50_000, np.random.default_rng(0)), axis=1)
    for column in range(4):
        assert distance(ours[:, column], theirs[:, column]) < 1.95 / np.sqrt(count)  # p = 0.001
    assert distance(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]) < 1.95 / np.sqrt(count)
    assert (ours[:, 0] + ours[:, 2]).max() == 112
    assert (ours[:, 1] + ours[:, 3]).max() == 112


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest difference of the two distribution functions."""
    values = np.union1d(one, other)
    shares = [np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def test_the_whole_image_when_no_attempt_fits():
    class Widest:
        """Always the whole area at the widest ratio: too wide."""

        def uniform(self, low, high, shape):
            return np.full(shape, high)

        def integers(self, limits):
            return limits - 1

    top, left, height, width = draw_boxes(3, Widest())
    assert np.stack([top, left, height, width]).tolist() == [[0] * 3, [0] * 3, [112] * 3, [112] * 3]


def test_other_draws_follow_the_peers_ranges():
    draws = FaceAugment(0.2, 0.3, 0.4, flip=True).draw(60_000, np.random.default_rng(5))
    for name, share in {"crop": 0.2, "low_res": 0.3, "photometric": 0.4, "flip": 0.5}.items():
        assert getattr(draws, name).mean() == pytest.approx(share, abs=0.01)
    torch.manual_seed(0)
    jitter = [ColorJitter.get_params([0.5, 1.5], [0.5, 1.5], [0.5, 1.5], None) for _ in range(3000)]
    for column, name in enumerate(("brightness", "contrast", "saturation"), start=1):
        theirs = np.array([drawn[column] for drawn in jitter])
        assert distance(getattr(draws, name)[:3000], theirs) < 1.95 * np.sqrt(2 / 3000)
    for name, values in {"order": 6, "down": 5, "up": 5}.items():
        shares = np.bincount(getattr(draws, name), minlength=values) / 60_000
        np.testing.assert_allclose(shares, 1 / values, atol=0.01)
    theirs = np.random.default_rng(6).uniform(0.2, 1.0, 60_000) * 112
    assert (draws.side.min(), draws.side.max()) == (22, 111)
    assert distance(draws.side, theirs.astype(int)) < 0.012
    assert abs(np.corrcoef(draws.down, draws.up)[0, 1]) < 0.02


def test_a_step_switched_off_does_not_shift_the_others():
    every = EVERYTHING.draw(50, np.random.default_rng(7))
    none = FaceAugment(0.0, 0.0, 0.0, flip=False).draw(50, np.random.default_rng(7))
    for name in ("top", "width", "side", "up", "order", "brightness", "saturation"):
        np.testing.assert_array_equal(getattr(every, name), getattr(none, name))
    assert not any(x.any() for x in (none.crop, none.low_res, none.photometric, none.flip))


def test_rows_of_a_batch_are_augmented_as_they_are_alone():
    draws = EVERYTHING.draw(12, np.random.default_rng(8))
    whole = EVERYTHING.apply(faces(12), draws)
    part = EVERYTHING.apply(faces(12)[5:9], draws.rows(slice(5, 9)))
    np.testing.assert_array_equal(part, whole[5:9])
