"""What folders of images mean: which are parts of a set (train, validation, test), which classes or people.

A wrong guess trains on test images or takes "train" and "test" for two people, and nothing tells. So names are
known in many forms, and what fits no arrangement is refused with what was seen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facenas.data.splits import Indices, hold_out_test
from facenas.errors import UserError

_PARTS = {
    "train": "train training trn",
    "validation": "val valid validation validate dev devel development",
    "test": "test testing tst eval evaluation holdout heldout",
    "unlabelled": "pred predict prediction predictions unlabeled unlabelled",
}
_FILLER = "set sets data dataset image images img imgs split folder files photos pictures"
# One word, as in trainset, test_data, val2017.
_PART_WORD = {
    part: re.compile(rf"({words.replace(' ', '|')})({_FILLER.replace(' ', '|')})?\d*")
    for part, words in _PARTS.items()
}
HELD_OUT = "a fixed fifth of the training images"
PARTS = TRAIN, VALIDATION, TEST = 0, 1, 2  # of a set, as numbers for each image
PART_NAMES = "training", "validation", "test"

Name = tuple[tuple[str, ...], str]  # a name's parts from some folder on, and the whole name
Labelled = list[tuple[str, int]]  # names and labels


class PartName(NamedTuple):
    """What a folder's name says: train, validation, test or unlabelled, and in which other words."""

    part: str
    rest: tuple[str, ...]


def part_of(folder: str) -> PartName | None:
    """The part that a folder is named after (`Training`, `train_images`, `seg_test`, `valset`), else None.

    Folders are parts of one set when their other words are the same, if there are any: `train_station` alone
    is a class.
    """
    plain = re.sub(r"(hold|held)[\W_]?out", r"\1out", folder.lower())
    words = [word for word in re.findall(r"[^\W_]+", plain) if word not in _FILLER.split()]
    found = [(part, word) for word in words for part, form in _PART_WORD.items() if form.fullmatch(word)]
    if len(found) != 1:
        return None
    part, word = found[0]
    return PartName(part, tuple(other for other in words if other != word))


def parts_among(folders: Iterable[str]) -> dict[str, list[str]]:
    """Folders side by side that are parts of one set, by part; none without a train folder.

    A train folder with other words in its name needs a partner that has the same.
    """
    names = {folder: found for folder in folders if (found := part_of(folder)) is not None}
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for folder, name in names.items():
        groups.setdefault(name.rest, {}).setdefault(name.part, []).append(folder)
    fitting = [g for rest, g in groups.items() if "train" in g and (not rest or len(g) > 1)]
    return max(fitting, key=len, default={})


class Arrangement(NamedTuple):
    """Which images make up a set: (name, label) in order, labels counted from 0 along `classes`.

    test_from: the folder of the test images, or `HELD_OUT`; ignored: what belongs to no part, in words.
    """

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    validation: Labelled
    test_from: str
    ignored: tuple[str, ...]


def arrange(names: Iterable[str], root: Path) -> Arrangement:
    """Sort image names (with forward slashes) into classes and parts, as `parts_of_folders` does.

    Without test images, a fixed fifth of the training images is. Raises UserError also when there are too few.
    """
    found = parts_of_folders(names, root)
    if found.test:
        return found
    kept, held_out = held_out_fifth(found.train, root)
    return found._replace(train=kept, test=held_out, test_from=HELD_OUT)


def parts_of_folders(
    names: Iterable[str], root: Path, images: Callable[[str], int] = lambda name: 1
) -> Arrangement:
    """Sort image names (with forward slashes) into classes and parts; there may be no test images.

    Folders around it all are looked through. Classes and images are ordered by name. Of parts, there must be
    one for training; validation images without test images are the test images. One name will do for all
    images of a folder: `images` then says how many they are. Raises UserError, naming `root` and what was seen,
    when there are fewer than two classes, images of a class in another part but not in training, or folders
    that fit no arrangement.
    """
    files = unwrapped(sorted((tuple(name.split("/")), name) for name in names))
    train, validation, test, test_from, ignored = _in_parts(files, root, images)
    classes = tuple(sorted({class_name(parts[0]) for parts, _ in train}))
    if len(classes) < 2:
        raise UserError(
            f"{root}: holds images of {len(classes)} class(es) where two or more are needed; give "
            "each class a folder, as <class>/<image> or train/<class>/<image>"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    for part, what in ((test, "test"), (validation, "validation")):
        strangers = sorted({class_name(parts[0]) for parts, _ in part} - set(classes))
        if strangers:
            raise UserError(
                f"{root}: class {strangers[0]!r} has {what} images but no training images; add some or "
                "remove the class"
            )
    labelled = [[(name, label_of[class_name(p[0])]) for p, name in part] for part in (train, validation, test)]
    kept, chosen_on, held_out = labelled
    return Arrangement(classes, kept, held_out, chosen_on, test_from, tuple(ignored))


def held_out_fifth(images: Labelled, root: Path) -> tuple[Labelled, Labelled]:
    """(train, test) of images without test images; raises UserError when there would be none."""
    parts = fifth_of(np.array([label for _, label in images], np.int64), root)
    kept, held_out = ([images[index] for index in part] for part in parts)
    return kept, held_out


def fifth_of(labels: NDArray[np.int64], root: Path) -> tuple[Indices, Indices]:
    """(train, test) indices, sorted; raises UserError as `held_out_fifth` does."""
    kept, held_out = hold_out_test(labels)
    if not len(held_out):
        raise UserError(
            f"{root}: has one image a class, too few to hold out test images; add images, or "
            "train/ and test/ folders"
        )
    return kept, held_out


def decide_parts(
    labels: NDArray[np.integer], told: NDArray[np.int8], classes: Sequence[str], root: Path
) -> NDArray[np.int8]:
    """(n,) which of `PARTS` each image is in, of what was told of each: all of it TRAIN when nothing was.

    Validation images without test images are the test images; without either, a fixed fifth is. labels: (n,)
    indices into `classes`. Raises UserError when a class has images in another part but not in training.
    """
    trained = np.bincount(labels[told == TRAIN], minlength=len(classes)) > 0
    for part in (TEST, VALIDATION):
        for label in np.unique(labels[told == part][~trained[labels[told == part]]])[:1]:
            raise UserError(
                f"{root}: class {classes[label]!r} has {PART_NAMES[part]} images but no training images; add "
                "some or remove the class"
            )
    if (told == TEST).any():
        return told
    if (told == VALIDATION).any():
        return np.where(told == VALIDATION, np.int8(TEST), told)
    found = told.copy()
    found[fifth_of(labels.astype(np.int64), root)[1]] = TEST
    return found


def class_name(folder: str) -> str:
    """A name in Unicode's composed form: macOS writes `e` and an accent, others one letter."""
    return unicodedata.normalize("NFC", folder)


def check_folder(root: Path, top: str, below: Sequence[Sequence[str]], seen: dict[str, str]) -> None:
    """Raises UserError when the folder `top` seems to be no class and nobody's.

    below: the parts of its images' names; seen: folders met so far in others, and where. A class has images
    directly in its folder; folders below that come again elsewhere are the classes, or parts.
    """
    deeper = dict.fromkeys(parts[0] for parts in below if len(parts) > 1)
    for folder in deeper:
        if seen.setdefault(folder, top) != top:
            raise UserError(
                f"{root}: {folder}/ lies in {seen[folder]}/ and in {top}/, so these seem to be neither classes "
                "nor people; give the folder above the classes, or call parts train/, val/ and test/"
            )
    if deeper and all(len(parts) > 1 for parts in below):
        more = ", ".join(f"{folder}/" for folder in list(deeper)[:3])
        raise UserError(
            f"{root}: {top}/ holds no image itself but the folder(s) {more}; images of a class or person lie "
            "directly in its folder, and parts are called train/, val/ and test/"
        )


def people(names: Iterable[str], root: Path) -> list[Name]:
    """Image names, sorted, with their parts from the person's folder on; one part alone lies in none.

    Folders around it all are looked through. Raises UserError for folders that are parts of a set, and for
    those that are nobody's (`check_folder`).
    """
    found = unwrapped(sorted((tuple(name.split("/")), name) for name in names))
    refuse_parts(root, {parts[0] for parts, _ in found if len(parts) > 1})
    seen: dict[str, str] = {}
    for top, some in groupby(found, lambda file: file[0][0]):
        check_folder(root, top, [parts[1:] for parts, _ in some if len(parts) > 1], seen)
    return found


def identities(names: Sequence[str], root: Path) -> dict[str, str]:
    """Whose each image is, by `people`, in the order of `names`; without those that lie in nobody's folder."""
    below = {name: parts for parts, name in people(names, root)}
    return {name: class_name(below[name][0]) for name in names if len(below[name]) > 1}


def refuse_parts(root: Path, folders: Iterable[str]) -> None:
    """Raises UserError when folders are parts of a set: train and test would be taken for two people."""
    found = parts_among(sorted(folders))
    if len(found) > 1:
        first, second = (names[0] for names in list(found.values())[:2])
        raise UserError(
            f"{root}: {first}/ and {second}/ are parts of a set, not people; give the folder "
            f"{found['train'][0]} alone"
        )


def unwrapped(files: list[Name], strict: bool = False) -> list[Name]:
    """Names without the folders around everything; `strict`: only those that hold no image themselves."""
    while True:
        inside = [parts for parts, _ in files if len(parts) > 1]
        deeper = [len(parts) > 2 for parts in inside]
        if len({parts[0] for parts in inside}) != 1 or not (all(deeper) if strict else any(deeper)):
            return files
        files, strict = [(parts[1:] or parts, name) for parts, name in files], True


def _in_parts(
    files: list[Name], root: Path, images: Callable[[str], int]
) -> tuple[list[Name], list[Name], list[Name], str, list[str]]:
    """(train, validation, test, folder of the test images, what is ignored); names from the class on."""

    def count(some: Iterable[Name]) -> int:
        return sum(images(name) for _, name in some)

    tops: dict[str, list[Name]] = {}
    for parts, name in files:
        tops.setdefault(parts[0] if len(parts) > 1 else "", []).append((parts[1:], name))
    ignored = [f"{count(loose)} image(s) outside any folder"] if (loose := tops.pop("", [])) else []
    found = _parts_with_classes(tops, root)
    if not found:
        _check_classes(root, tops)
        return [file for file in files if len(file[0]) > 1], [], [], "", ignored
    below: dict[str, list[Name]] = {}
    for part, (top, *_) in found.items():
        if part != "unlabelled":
            below[part] = _classes_below(root / top, tops[top])
            if loose_ones := count(tops[top]) - count(below[part]):
                ignored.append(f"{loose_ones} image(s) of {top}/ outside any class")
    train = below.get("train", [])
    classes = {parts[0] for parts, _ in train}
    for top in [t for t in tops if not any(t in folders for folders in found.values())]:
        repeated = sorted({parts[0] for parts, _ in tops[top] if len(parts) > 1} & classes)
        if repeated:
            raise UserError(
                f"{root}: {top}/ holds {repeated[0]}/ as {found['train'][0]}/ does, but its name is no part's; "
                "call it val or test, or move it away"
            )
        ignored.append(f"{top}/ with {count(tops[top])} image(s)")
    for top in found.get("unlabelled", []):
        ignored.append(f"{top}/ with {count(tops[top])} image(s)")
    validation, test = below.get("validation", []), below.get("test", [])
    if not test:
        return train, [], validation, f"{found['validation'][0]}/" if validation else "", ignored
    return train, validation, test, f"{found['test'][0]}/", ignored


def _parts_with_classes(tops: dict[str, list[Name]], root: Path) -> dict[str, list[str]]:
    """`parts_among` of `tops`; raises UserError when one has no class folders, or two are one part."""
    found = parts_among(tops)
    flat = [
        folder
        for part, folders in found.items()
        for folder in folders
        if part != "unlabelled" and all(len(parts) == 1 for parts, _ in tops[folder])
    ]
    if flat and len(found) == 1:  # a class that is called train
        return {}
    for part, folders in found.items():
        if part != "unlabelled" and len(folders) > 1:
            raise UserError(
                f"{root}: {folders[0]}/ and {folders[1]}/ are both called after the {part} part; keep one"
            )
    if flat:
        raise UserError(
            f"{root}: {flat[0]}/ has images but no class folders; sort them into "
            f"{flat[0]}/<class>/, or remove it"
        )
    return found


def _classes_below(root: Path, files: list[Name]) -> list[Name]:
    """The images of a part, in the folder `root`, that lie in class folders."""
    kept = [file for file in unwrapped(files, strict=True) if len(file[0]) > 1]
    classes: dict[str, list[Name]] = {}
    for parts, name in kept:
        classes.setdefault(parts[0], []).append((parts[1:], name))
    _check_classes(root, classes)
    return kept


def _check_classes(root: Path, tops: dict[str, list[Name]]) -> None:
    seen: dict[str, str] = {}
    for top, files in tops.items():
        check_folder(root, top, [parts for parts, _ in files], seen)
