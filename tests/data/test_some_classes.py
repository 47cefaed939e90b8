"""Some classes of a set: the same images under new labels, with keys of their own."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from facenas.config import deciding
from facenas.data import describe, open_image_set, prepare
from facenas.data.config import DataConfig
from facenas.errors import UserError


def opened(name="digits", **settings):
    return open_image_set(prepare(DataConfig(name=name, **settings)))


def test_images_of_the_classes_keep_their_order_and_get_labels_from_0():
    whole, some = opened(), opened(classes=(5, "3"))
    assert some.classes == ("3", "5")
    for part in ("train", "test"):
        images, labels = getattr(whole, f"{part}_images"), getattr(whole, f"{part}_labels")
        kept = np.isin(labels, (3, 5))
        np.testing.assert_array_equal(getattr(some, f"{part}_images"), images[kept])
        np.testing.assert_array_equal(getattr(some, f"{part}_labels"), (labels[kept] == 5).astype(int))
    assert (some.mean, some.std, some.flip, some.crop_size) == (whole.mean, whole.std, False, 8)
    assert some.fingerprint not in (whole.fingerprint, opened(classes=(3, 4)).fingerprint)
    told = describe(some)
    assert (told["name"], told["classes"]) == ("digits (3, 5)", 2)


def test_left_out_it_is_no_part_of_a_key():
    assert "classes" not in deciding(DataConfig())
    assert DataConfig(classes=(3, 5)).deciding()["classes"] == [3, 5]


def test_a_folder_keeps_its_own_validation_images(tmp_path):
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        for shade, name in enumerate(("cat", "dog", "owl")):
            (tmp_path / "animals" / part / name).mkdir(parents=True)
            for number in range(count):
                color = (shade * 80, number * 20, 0)
                Image.new("RGB", (9, 9), color).save(tmp_path / "animals" / part / name / f"{number}.png")
    some = opened(str(tmp_path / "animals"), classes=("owl", "cat"))
    assert (some.classes, some.validation_images) == (("cat", "owl"), 6)
    assert some.train_labels.tolist() == [0] * 5 + [1] * 5 + [0] * 3 + [1] * 3
    assert some.test_images[:, 0, 0, 0].tolist() == [0, 0, 160, 160]


@pytest.mark.parametrize(
    ("classes", "fault"),
    [
        ((3,), "is '3' alone; two classes or more"),
        ((3, 3), "is '3' alone"),
        ((3, 10), "digits has no class 10; there are 0, 1, 2"),
        (("cat", 2), "digits has no class 'cat'; .* or their numbers from 0 to 9"),
    ],
)
def test_classes_that_are_none_are_named(classes, fault):
    with pytest.raises(UserError, match=fault):
        opened(classes=classes)


def test_stores_are_used_whole(tmp_path):
    store = tmp_path / "faces.zarr"
    store.mkdir()
    with pytest.raises(UserError, match=r"faces\.zarr is a store, of which all is used"):
        prepare(DataConfig(name=str(store), classes=(0, 1)))
