"""Augmentation of whole batches on a device, against OpenCV's one image at a time; all of it on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import simplejpeg
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from facenas.data.faces.augment import FaceAugment
from facenas.data.faces.batch_augment import BatchAugment
from facenas.data.faces.generated import generated_image

CPU = torch.device("cpu")
LOW_RES = FaceAugment(0.0, 1.0, 0.0, flip=False)
PHOTOMETRIC = FaceAugment(0.0, 0.0, 1.0, flip=False)
SOME = FaceAugment(0.2, 0.2, 0.2, flip=True)


@pytest.fixture(scope="module")
def faces():
    """(24, 112, 112, 3) uint8: drawn faces, and for every third image noise, the hardest to resample alike."""
    images = np.random.default_rng(0).integers(0, 256, (24, 112, 112, 3), dtype=np.uint8)
    for number in range(24):
        if number % 3:
            images[number] = simplejpeg.decode_jpeg(generated_image(0, number, 0))
    return images


def repeated(images, count):
    return images[np.arange(count) % len(images)]


def drawn(augment, count, seed=0, **changes):
    return replace(augment.draw(count, np.random.default_rng(seed)), **changes)


def applied(augment, images, draws):
    """(n, 112, 112, 3) int64 grey levels."""
    batch = BatchAugment(augment, CPU)
    found = batch.apply(torch.from_numpy(images), *batch.plan(draws))
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    levels = (found.permute(0, 2, 3, 1) + 1) * 127.5  # of (x / 255 - 0.5) / 0.5
    assert (levels - levels.round()).abs().max() < 1e-4
    return levels.round().long().numpy()


def differences(augment, images, draws):
    return np.abs(applied(augment, images, draws) - augment.apply(images.copy(), draws))


def test_crop_and_flip_are_exact(faces):
    augment = FaceAugment(0.5, 0.0, 0.0, flip=True)
    before = faces.copy()
    assert differences(augment, faces, drawn(augment, 24)).max() == 0
    np.testing.assert_array_equal(faces, before)


def test_low_resolution_is_within_two_grey_levels_for_every_side_and_way(faces):
    number = np.arange(225)
    ways = {"down": number % 5, "up": number // 5 % 5, "side": 22 + number * 37 % 90}
    found = differences(LOW_RES, repeated(faces, 225), drawn(LOW_RES, 225, **ways))
    assert found.max() <= 2
    assert (found > 1).mean() < 1e-3


@pytest.mark.parametrize("step", ["brightness", "contrast", "saturation"])
def test_a_photometric_step_is_within_a_grey_level(faces, step):
    others = {name: np.ones(24) for name in ("brightness", "contrast", "saturation") if name != step}
    found = differences(PHOTOMETRIC, faces, drawn(PHOTOMETRIC, 24, **others))
    assert found.max() <= 1
    assert found.mean() < 1e-4


def test_photometric_steps_follow_each_other_in_all_six_orders(faces):
    found = differences(PHOTOMETRIC, repeated(faces, 72), drawn(PHOTOMETRIC, 72, order=np.arange(72) // 12))
    assert found.max() <= 3  # the last step enlarges what the first ones differ by
    assert found.mean() < 1e-4


def test_all_steps_together(faces):
    augment = FaceAugment(0.5, 0.5, 0.5, flip=True)
    found = differences(augment, repeated(faces, 120), drawn(augment, 120))
    assert found.max() <= 8  # the factors enlarge what resampling differs by
    assert found.mean() < 0.05


@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize("count", [2, 64])
def test_all_or_none_are_chosen(faces, count, chosen):
    images, every = repeated(faces, count), np.full(count, chosen)
    names = ("crop", "low_res", "photometric", "flip")
    draws = drawn(SOME, count, **dict.fromkeys(names, every))
    found = differences(SOME, images, draws)
    assert found.max() <= (8 if chosen else 0)
    assert found.mean() < 0.1


def test_shapes_of_a_plan_depend_on_size_and_probabilities():
    batch = BatchAugment(FaceAugment(0.2, 0.3, 0.0, flip=True), CPU)
    shapes = {tuple(part.shape for part in batch.plan(drawn(batch.augment, 64, seed))) for seed in range(200)}
    # 19.2 + 4 * 3.67 of 64 are 33.9; rounded up, 40
    assert shapes == {((2, 2, 64), (3, 40), (0,), (3, 3, 0), (64,))}
    many = drawn(batch.augment, 64, low_res=np.arange(64) < 41)
    assert batch.plan(many)[1].shape == (3, 48)
    assert len(batch.plan(many)[1][0].unique()) == 48  # a row that came twice would be written twice


def test_other_rows_are_not_touched(faces):
    draws = drawn(SOME, 24, seed=1)
    untouched = ~(draws.crop | draws.low_res | draws.photometric | draws.flip)
    assert 0 < untouched.sum() < 24
    np.testing.assert_array_equal(applied(SOME, faces, draws)[untouched], faces[untouched])


def test_autocast_changes_nothing(faces):
    draws = drawn(SOME, 24)
    with torch.autocast("cpu", torch.bfloat16):
        found = applied(SOME, faces, draws)
    np.testing.assert_array_equal(found, applied(SOME, faces, draws))


class Capturable(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: draws, values the host waits for, tensors of other devices."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tags = {
            torch.Tag.nondeterministic_seeded,
            torch.Tag.data_dependent_output,
            torch.Tag.dynamic_output_shape,
        }
        assert not tags & set(func.tags), func
        found = func(*args, **(kwargs or {}))
        assert not isinstance(found, torch.Tensor) or found.device.type == "cuda", func
        self.calls += 1
        return found


def test_apply_can_be_captured():
    batch = BatchAugment(SOME, CPU)
    plan = batch.plan(drawn(SOME, 64))
    with FakeTensorMode() as fake:
        card = torch.device("cuda:0")
        for name, value in vars(batch).items():
            if isinstance(value, torch.Tensor):
                setattr(batch, name, fake.from_tensor(value).to(card))
        moved = [fake.from_tensor(part).to(card) for part in plan]
        images = torch.empty(64, 112, 112, 3, dtype=torch.uint8, device=card)
        with Capturable() as mode:
            found = batch.apply(images, *moved)
    assert mode.calls > 20
    assert (found.shape, found.dtype, found.device) == ((64, 3, 112, 112), torch.float32, card)
    assert found.is_contiguous(memory_format=torch.channels_last)
