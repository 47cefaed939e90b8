"""Which folders are parts and which are classes: one table of arrangements as people bring them."""

import zipfile
from pathlib import Path

import pytest

from facenas.data.faces.sources import open_source
from facenas.data.parts import HELD_OUT, arrange, part_of
from facenas.errors import UserError

ROOT = Path("pets")


def images(*folders, count=5):
    return [f"{folder}/{i}.png" for folder in folders for i in range(count)]


def both(*parts):
    """Images of two classes in every part."""
    return images(*(f"{part}/{c}" for part in parts for c in ("cat", "dog")))


@pytest.mark.parametrize(
    ("names", "counts", "test_from"),
    [
        (both("training_set/training_set", "test_set/test_set"), (10, 0, 10), "test_set/"),
        (both("seg_train/seg_train", "seg_test/seg_test") + images("seg_pred/pred"), (10, 0, 10), "seg_test/"),
        (both("train_data", "test_data"), (10, 0, 10), "test_data/"),
        (both("train_images", "val_images", "test_images"), (10, 10, 10), "test_images/"),
        (both("TrainSet", "TestSet"), (10, 0, 10), "TestSet/"),
        (both("train", "val", "test"), (10, 10, 10), "test/"),
        (both("archive/data/pets-train", "archive/data/pets-holdout"), (10, 0, 10), "pets-holdout/"),
        (both("train", "hold_out"), (10, 0, 10), "hold_out/"),
        (both("train", "dev", "eval"), (10, 10, 10), "eval/"),
        (both("train", "dev"), (10, 0, 10), "dev/"),
        (both("train"), (8, 0, 2), HELD_OUT),
        (images("train_station", "test_tube", "bus"), (12, 0, 3), HELD_OUT),
        (images("train", "car", "bus"), (12, 0, 3), HELD_OUT),
    ],
)
def test_parts_are_known_by_many_names(names, counts, test_from):
    plan = arrange(names, ROOT)
    assert tuple(map(len, (plan.train, plan.validation, plan.test))) == counts
    assert plan.test_from == test_from
    assert {"cat", "dog"} == set(plan.classes) or "bus" in plan.classes
    assert not {name for name, _ in plan.train} & {name for name, _ in plan.test}


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (images("train", "test"), "test/ has images but no class folders"),
        (both("train", "extra"), "extra/ holds cat/ as train/ does, but its name is no part's"),
        (both("first", "second"), r"first/ holds no image itself but the folder\(s\) cat/, dog/"),
        (images("cat", "cat/low", "dog", "dog/low"), "low/ lies in cat/ and in dog/"),
        (images("cat/front", "dog"), "cat/ holds no image itself"),
        (images("train/cat/front", "train/dog", "test/cat", "test/dog"), "cat/ holds no image itself"),
        (both("train", "test", "holdout"), "holdout/ and test/ are both called after the test part"),
    ],
)
def test_what_fits_no_arrangement_is_refused(names, fault):
    with pytest.raises(UserError, match=f"^pets.*: .*{fault}"):
        arrange(names, ROOT)


def test_what_is_ignored_is_named_and_accents_are_one_letter():
    plan = arrange(["top.png", *both("train", "test"), *images("notes"), "train/0.png"], ROOT)
    told = ["1 image(s) outside any folder", "1 image(s) of train/ outside any class", "notes/ with 5 image(s)"]
    assert list(plan.ignored) == told
    assert arrange(images("train/Caf\u00e9", "train/b", "test/Cafe\u0301"), ROOT).classes == ("Caf\u00e9", "b")
    assert part_of("bus") is part_of("train_test") is None


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (both("train", "test"), "test/ and train/ are parts of a set, not people; give .*train alone"),
        (images("2020/ann", "2021/ann"), r"2020/ holds no image itself but the folder\(s\) ann/"),
        (images("ann/2020", "bob"), "ann/ holds no image itself"),
        (images("data/faces/ann", "data/faces/bob"), None),
    ],
)
@pytest.mark.parametrize("ending", ["", ".zip"])
def test_parts_are_not_people(names, fault, ending, tmp_path):
    place = tmp_path / f"people{ending}"
    if ending:
        with zipfile.ZipFile(place, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
    for name in names if not ending else ():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    if fault is None:
        assert {item.identity for item in open_source(place).items()} == {"ann", "bob"}
        return
    with pytest.raises(UserError, match=fault):
        open_source(place)
