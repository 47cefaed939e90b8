"""The sets known by name: where their files lie, their classes, and the authors' numbers."""

from __future__ import annotations

import contextlib
import string
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from facenas.data.cifar import CifarLayout
from facenas.data.config import DataConfig
from facenas.data.idx import IdxLayout
from facenas.data.images import Pixels
from facenas.data.source import Decoded, Labels, Source, part_of, stamp
from facenas.data.splits import TEST_FRACTION, split_indices
from facenas.errors import UserError


class Layout(Protocol):
    """A file format and the places where its files may lie."""

    def places(self, root: Path) -> list[Path]:
        """Where to look, best first."""
        ...

    def files(self, place: Path) -> list[Path] | None:
        """The set's files at `place`, or None when it is not whole."""
        ...

    def read(self, files: list[Path]) -> tuple[Pixels, Labels, Pixels, Labels]:
        """Train images, train labels, test images, test labels."""
        ...


@dataclass(frozen=True)
class NamedSet:
    """What is known of a set. torchvision: the class that can fetch it, and its arguments."""

    layout: Layout
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    torchvision: str
    arguments: dict[str, Any] = field(default_factory=dict)


_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge
bus butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
tulip turtle wardrobe whale willow_tree wolf woman worm"""
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# EMNIST balanced merges the lower-case letters that look like their capitals.
_EMNIST = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")

NAMED_SETS = {
    "cifar10": NamedSet(
        CifarLayout(
            "cifar-10-batches-py",
            "cifar-10-python.tar.gz",
            tuple(f"data_batch_{number}" for number in range(1, 6)),
            "test_batch",
            "labels",
        ),
        tuple(_CIFAR10.split()),
        (0.49139968, 0.48215827, 0.44653124),
        (0.24703233, 0.24348505, 0.26158768),
        flip=True,
        torchvision="CIFAR10",
    ),
    "cifar100": NamedSet(
        CifarLayout(
            "cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", "fine_labels"
        ),
        tuple(_CIFAR100.split()),
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        flip=True,
        torchvision="CIFAR100",
    ),
    "mnist": NamedSet(
        IdxLayout(("MNIST/raw", "mnist", ".")),
        tuple(f"{number} - {word}" for number, word in enumerate(_DIGITS)),
        (0.1307,),
        (0.3081,),
        flip=False,
        torchvision="MNIST",
    ),
    "fashion_mnist": NamedSet(
        IdxLayout(("FashionMNIST/raw", "fashion-mnist", "fashion_mnist", ".")),
        _FASHION,
        (0.2860402,),
        (0.3530236,),
        flip=True,
        torchvision="FashionMNIST",
    ),
    "kmnist": NamedSet(
        IdxLayout(("KMNIST/raw", "kmnist", ".")),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        (0.19036119,),
        (0.34719803,),
        flip=False,
        torchvision="KMNIST",
    ),
    "emnist_balanced": NamedSet(
        IdxLayout(
            ("EMNIST/raw", "emnist", "emnist-balanced", "emnist_balanced", "gzip", "."),
            ("emnist-balanced-train", "emnist-balanced-test"),
        ),
        _EMNIST,
        (0.1751,),
        (0.3332,),
        flip=False,
        torchvision="EMNIST",
        arguments={"split": "balanced"},
    ),
}
KNOWN_NAMES = (*NAMED_SETS, "digits")


def known_name(text: str) -> str | None:
    """The set that `text` means (`Fashion-MNIST`, `fashion_mnist`, `FashionMNIST`), else None."""
    plain = text.lower().replace("-", "").replace("_", "")
    return next((name for name in KNOWN_NAMES if name.replace("_", "") == plain), None)


def find_named(name: str, config: DataConfig) -> Source:
    """The known set `name` below `config.root`; fetched when it is missing and that is allowed.

    Raises UserError when its files are not to be had.
    """
    if name == "digits":
        return Source(name, [config.image_size], lambda: _decode_digits(config.image_size))
    known = NAMED_SETS[name]
    files = _find_files(name, config.root)
    if files is None and config.download:
        _fetch(name, config.root)
        files = _find_files(name, config.root)
    if files is None:
        places = ", ".join(str(place) for place in _places(name, config.root))
        raise UserError(
            f"{name}: not found at {places}; put its files at one of them, give another folder "
            "with --data-root, or fetch it with --download"
        )
    identity = [config.image_size, *(stamp(path) for path in files)]
    return Source(name, identity, lambda: _decode(known, files, config.image_size))


def _places(name: str, root: Path) -> list[Path]:
    # MNIST and its successors share their file names: a root named after one is not another.
    other = known_name(root.resolve().name) not in (None, name)
    return [p for p in NAMED_SETS[name].layout.places(root) if not (other and p == root)]


def _find_files(name: str, root: Path) -> list[Path] | None:
    found = (NAMED_SETS[name].layout.files(place) for place in _places(name, root))
    return next((files for files in found if files is not None), None)


def _fetch(name: str, root: Path) -> None:
    import torchvision.datasets  # heavy, and needed only here

    known = NAMED_SETS[name]
    try:
        # torchvision prints; standard output belongs to the commands' own answers.
        with contextlib.redirect_stdout(sys.stderr):
            fetcher = getattr(torchvision.datasets, known.torchvision)
            fetcher(root, download=True, **known.arguments)
    except Exception as error:  # network, disk, checksum: torchvision raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name}: the download into {root} failed ({reason}); try again, or put its files "
            "there by hand"
        ) from None


def _decode(known: NamedSet, files: list[Path], image_size: int | None) -> Decoded:
    train, train_labels, test, test_labels = known.layout.read(files)
    own_size = train.shape[1]
    for images, labels in ((train, train_labels), (test, test_labels)):
        _check(images, labels, own_size, len(known.classes), files[0].parent)
    size = image_size or own_size
    return Decoded(
        part_of(train, train_labels, size),
        part_of(test, test_labels, size),
        known.classes,
        known.flip,
        # The authors train 28x28 images at 32x32 (pad 4, random crop) and test at 28x28.
        image_size or 32,
        known.mean,
        known.std,
    )


def _check(images: Pixels, labels: Labels, size: int, classes: int, where: Path) -> None:
    """Raises UserError unless images and labels fit each other and the set."""
    if len(images) != len(labels) or not len(images):
        fault = f"{len(images):,} images and {len(labels):,} labels"
    elif images.shape[1:3] != (size, size):
        fault = f"images of {images.shape[2]}x{images.shape[1]} where {size}x{size} is expected"
    elif labels.min() < 0 or labels.max() >= classes:
        fault = f"labels beyond its {classes} classes"
    else:
        return
    raise UserError(
        f"{where}: one part of the set has {fault}; delete its files and fetch them again"
    )


def _decode_digits(image_size: int | None) -> Decoded:
    from sklearn.datasets import load_digits  # a second to import

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    train, test = split_indices(labels, TEST_FRACTION, 1.0, seed=0)
    size = image_size or images.shape[1]
    return Decoded(
        part_of(images[train], labels[train], size),
        part_of(images[test], labels[test], size),
        tuple(str(name) for name in digits.target_names),
        flip=False,
        crop_size=size,
    )
