"""Data by name: a known classification set, a folder or .zip of images, a cache entry, or a store.

`prepare` is called by the main process, `open_data` by it and by every worker.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from facenas.data.arrays import from_npz
from facenas.data.cache import (
    Decoded,
    ImageSet,
    Labels,
    cached,
    default_cache,
    is_entry,
    open_image_set,
    stamp,
)
from facenas.data.config import DataConfig
from facenas.data.folders import cached_folder
from facenas.data.found import SKIPPED, read_found, refuse_skipped, tell
from facenas.data.images import Pixels
from facenas.data.parts import HELD_OUT
from facenas.data.remote import is_url, local_copy
from facenas.data.some_classes import of_classes
from facenas.data.splits import hold_out_test
from facenas.errors import UserError
from facenas.spaces import ImageFacts

if TYPE_CHECKING:  # stores take OpenCV and more: images in memory do without
    from facenas.data.classes.store import ImageStore
    from facenas.data.faces.store import FaceStore

ClassData: TypeAlias = "ImageSet | ImageStore"
TrainingData: TypeAlias = "ClassData | FaceStore"

DEMO = "demo"  # generated faces, made on first use
_DEMO_IDENTITIES, _DEMO_IMAGES = 120, 24

HOW_TO_GET_FACES = (
    "import CASIA-WebFace by `facenas data import faces_webface_112x112 casia.zarr` and give "
    "casia.zarr as the data, or try at once with the data called demo (generated faces)"
)


class NamedSet(NamedTuple):
    """What is known of a set: its files, and the authors' numbers.

    reader: the class in torchvision.datasets; folders: where the files may lie, relative to the data root,
    the first that is whole wins; archive: taken in their place; split: argument of `reader`.
    """

    reader: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    archive: str | None = None
    split: str | None = None


def _idx(
    reader: str,
    folders: tuple[str, ...],
    mean: float,
    std: float,
    flip: bool = False,
    split: str | None = None,
) -> NamedSet:
    train, test = (f"emnist-{split}-train", f"emnist-{split}-test") if split else ("train", "t10k")
    kinds = ("images-idx3", "labels-idx1")
    files = tuple(f"{part}-{kind}-ubyte" for part in (train, test) for kind in kinds)
    folders = (f"{reader}/raw", *folders, ".")
    return NamedSet(reader, folders, files, (mean,), (std,), flip, split=split)


NAMED_SETS = {
    "cifar10": NamedSet(
        "CIFAR10",
        ("cifar-10-batches-py", "."),
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
        (0.49139968, 0.48215827, 0.44653124),
        (0.24703233, 0.24348505, 0.26158768),
        archive="cifar-10-python.tar.gz",
    ),
    "cifar100": NamedSet(
        "CIFAR100",
        ("cifar-100-python", "."),
        ("train", "test"),
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        archive="cifar-100-python.tar.gz",
    ),
    "mnist": _idx("MNIST", ("mnist",), 0.1307, 0.3081),
    "fashion_mnist": _idx("FashionMNIST", ("fashion-mnist", "fashion_mnist"), 0.2860402, 0.3530236, flip=True),
    "kmnist": _idx("KMNIST", ("kmnist",), 0.19036119, 0.34719803),
    # Balanced: lower-case letters that look like their capitals are one class with them. The files hold
    # transposed images, which stay so, as torchvision returns them: numbers are then comparable.
    "emnist_balanced": _idx(
        "EMNIST",
        ("emnist", "emnist-balanced", "emnist_balanced", "gzip"),
        0.1751,
        0.3332,
        split="balanced",
    ),
}
KNOWN_NAMES = (*NAMED_SETS, "digits")


def prepare(config: DataConfig, cache: Path | None = None) -> Path:
    """The folder that `open_data` opens: a store, or the decoded set in `cache` that `config` names.

    Logs, once, what it holds, and warns of what looks wrong (`facenas.data.found`). A known name goes first
    (`./digits` is the folder of that name). Decodes on the first call only; a changed source, size or format
    gets another folder below `cache`. Raises UserError when the data is unknown, missing or damaged, and
    SearchStoppedError when `strict` and images cannot be read.
    """
    cache = cache or default_cache()
    folder = _prepared(config, cache)
    tell(folder.resolve())
    if config.strict:
        refuse_skipped(config.name, read_found(folder).get("skipped", 0), folder / SKIPPED)
    if not config.classes:
        return folder
    if names_store(folder):
        raise UserError(
            f"data.classes: {config.name} is a store, of which all is used; import some classes alone"
        )
    folder = of_classes(folder, config.classes, cache)
    tell(folder.resolve())
    return folder


def _prepared(config: DataConfig, cache: Path) -> Path:
    if is_url(config.name):
        return local_copy(config.name, cache)
    name, path = known_name(config.name), Path(config.name).expanduser()
    if name is not None or config.name == DEMO:
        _refuse_two(config.name, path, _places(name, config.root) if name in NAMED_SETS else [])
    if config.name == DEMO:
        return _demo_store(cache)
    if name is not None:
        return _cached_named(name, config, cache)
    if names_store(path):
        if not path.exists():
            raise UserError(
                f"{path}: there is no such store of faces; {HOW_TO_GET_FACES}; of images by class, "
                "`facenas data import SOURCE OUT.zarr --classes` makes one"
            )
        return path
    if is_entry(path):
        return _entry(path, config.image_size, cache)
    if path.suffix.lower() == ".npz" and path.is_file():
        return Path(from_npz(path, config.image_size, cache))
    if path.exists():
        return cached_folder(path, config.image_size, cache)
    if path.parent.resolve() == cache.resolve():
        fault = "is no longer in the cache; hand over the arrays or the Dataset again"
    elif "/" in config.name or "\\" in config.name or config.name.endswith(".zip"):
        fault = "no such file or folder"
    else:
        known = ", ".join(KNOWN_NAMES)
        fault = f"unknown data set; there are {known}, or give the path of a folder, .zip or list of images"
    raise UserError(f"{config.name}: {fault}")


def open_data(folder: Path, image_size: int | None = None) -> TrainingData:
    """What `prepare` gave, memory-mapped. Raises UserError when a file is missing or torn.

    image_size: pixels a side at which the images of a store of classes are seen; None: see
    `facenas.data.classes.store.IMAGE_SIZE`.
    """
    if not names_store(folder):
        return open_image_set(folder)
    from facenas.data.classes.store import is_image_store, open_image_store
    from facenas.data.faces.store import open_store

    return open_image_store(folder, image_size) if is_image_store(folder) else open_store(folder)


def describe(data: TrainingData) -> dict[str, Any]:
    """What a run notes of its data."""
    from facenas.data.faces.store import FaceStore

    if not isinstance(data, FaceStore):
        stem = ImageFacts(data.in_channels, data.num_classes, data.image_size).stem_stride
        return {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train_images": len(data.train_labels),
            "test_images": len(data.test_labels),
            **({"validation_images": data.validation_images} if data.validation_images else {}),
            "classes": data.num_classes,
            "image_size": data.image_size,
            "in_channels": data.in_channels,
            **({"stem_stride": stem} if stem > 1 else {}),
        }
    return {
        "name": data.path.stem,
        "source": data.source,
        "fingerprint": data.fingerprint,
        "train_images": len(data),
        "identities": data.identities,
        "image_size": 112,
        "in_channels": 3,
    }


def known_name(text: str) -> str | None:
    """The set that `text` means (`Fashion-MNIST`, `fashion_mnist`, `FashionMNIST`), else None."""
    plain = text.lower().replace("-", "").replace("_", "")
    return next((name for name in KNOWN_NAMES if name.replace("_", "") == plain), None)


def _refuse_two(name: str, path: Path, own: list[Path]) -> None:
    """Raises UserError when `path`, called as a set is, may be what is meant; own: places of the set itself.

    A folder without folders, some images or an empty one, is no set.
    """
    if path.is_dir() and not any(inside.is_dir() for inside in path.iterdir()):
        return
    if path.exists() and path.resolve() not in [place.resolve() for place in own]:
        raise UserError(
            f"{name}: is a data set, and there is {path.absolute()} as well; give ./{name} for that, or rename "
            "it to have the data set"
        )


def names_store(path: Path) -> bool:
    """Whether the path is, or should be, a store, of faces or of images by class."""
    return path.suffix == ".zarr" or (path / "zarr.json").exists()


def _demo_store(cache: Path) -> Path:
    from facenas.data.faces.generated import VERSION, write_generated
    from facenas.data.faces.store import open_store

    name = f"generated-{_DEMO_IDENTITIES}x{_DEMO_IMAGES}-v{VERSION}.zarr"
    store = cache / name
    try:
        if store.exists():
            open_store(store)
            return store
    except UserError:  # of an older version: it can be made again
        shutil.rmtree(store, ignore_errors=True)
    write_generated(store, _DEMO_IDENTITIES, _DEMO_IMAGES, seed=0)
    return store


def _entry(path: Path, image_size: int | None, cache: Path) -> Path:
    """The cache entry itself, or another one with its images resized."""
    own = open_image_set(path)
    if image_size in (None, own.image_size):
        return path
    train, test = (own.train_images, own.train_labels), (own.test_images, own.test_labels)
    decoded = Decoded(train, test, own.classes, image_size or 0, own.flip)
    identity = [image_size, own.fingerprint, own.flip, *own.classes]
    return cached(own.name, identity, lambda: decoded, cache)


def _cached_named(name: str, config: DataConfig, cache: Path) -> Path:
    """The cache entry of the known set below `config.root`; fetched when it is missing and that is allowed.

    Raises UserError when its files are not to be had.
    """
    size, root = config.image_size, config.root
    if name == "digits":
        return cached(name, [size], lambda: _decode_digits(size), cache)
    files = _find_files(name, root)
    if not files and config.download:
        _fetch(name, root)
        files = _find_files(name, root)
    if not files:
        places = ", ".join(map(str, _places(name, root)))
        raise UserError(
            f"{name}: not found at {places}; put its files at one of them, set data.root to another "
            "folder, or data.download to fetch it"
        )
    identity = [size, *(stamp(path) for path in files)]
    return cached(name, identity, lambda: _decode(NAMED_SETS[name], files, size), cache)


def _places(name: str, root: Path) -> list[Path]:
    known = NAMED_SETS[name]
    places = [root / folder for folder in known.folders]
    # MNIST and its successors share their file names: a root named after one is not another.
    if known_name(root.resolve().name) not in (None, name):
        places.remove(root)
    return places + ([root / known.archive] if known.archive else [])


def _find_files(name: str, root: Path) -> list[Path]:
    """The files of the first place that has all of them, each with or without `.gz`; or the archive alone."""
    for place in _places(name, root):
        if place.is_file():
            return [place]
        pairs = [(place / file, place / f"{file}.gz") for file in NAMED_SETS[name].files]
        found = [path for pair in pairs for path in [p for p in pair if p.is_file()][:1]]
        if len(found) == len(pairs):
            return found
    return []


def _fetch(name: str, root: Path) -> None:
    known = NAMED_SETS[name]
    try:
        # torchvision prints; standard output belongs to the commands' own answers.
        with contextlib.redirect_stdout(sys.stderr):
            options = {"split": known.split} if known.split else {}
            _reader(known)(root, download=True, **options)
    except Exception as error:  # network, disk, checksum: torchvision raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name}: the download into {root} failed ({reason}); try again, or put its files there by hand"
        ) from None


def _reader(known: NamedSet) -> Any:
    import torchvision.datasets  # with torch, a second and a half, and needed on first use only

    return getattr(torchvision.datasets, known.reader)


def _decode(known: NamedSet, files: list[Path], image_size: int | None) -> Decoded:
    read = _read_cifar if known.archive else _read_idx
    train, test, classes = read(known, files)
    own_size = train[0].shape[1]
    for part in (train, test):
        _check(*part, own_size, len(classes), files[0].parent)
    # The authors train 28x28 images at 32x32 (pad 4, random crop) and test at 28x28.
    size, crop = image_size or own_size, image_size or 32
    return Decoded(train, test, classes, size, known.flip, crop, known.mean, known.std)


_Part: TypeAlias = tuple[Pixels, Labels]  # images (n, h, w, c) and labels (n,)


def _read_idx(known: NamedSet, files: list[Path]) -> tuple[_Part, _Part, tuple[str, ...]]:
    """Training and test images (n, h, w, 1) with their labels, and the names of the classes.

    No checksums are compared: repacked copies of the same images are common, and nothing in them is run.
    """
    reader = _reader(known)
    from torchvision.datasets.mnist import read_image_file, read_label_file

    arrays = []
    with TemporaryDirectory() as folder:
        for path, read in zip(files, 2 * (read_image_file, read_label_file), strict=True):
            try:
                arrays.append(read(_unpacked(path, Path(folder))).numpy())
            except Exception as error:  # torchvision asserts, and gzip and zlib have errors of their own
                reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
                told = f" ({reason})" if reason else ""
                raise UserError(
                    f"{path}: is damaged, or no IDX file of unsigned bytes{told}; delete it and fetch it again"
                ) from None
    train, train_labels, test, test_labels = arrays
    classes = reader.classes_split_dict[known.split] if known.split else reader.classes
    return (train[..., None], train_labels), (test[..., None], test_labels), tuple(classes)


_MOST_UNPACKED = 1 << 30  # bytes; EMNIST's largest file has half of it


def _unpacked(path: Path, folder: Path) -> Path:
    """The file itself, or a copy in `folder` when its content is gzip: what is called .gz need not be."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path
    left = _MOST_UNPACKED
    with gzip.open(path) as packed, (folder / path.name).open("wb") as plain:
        while block := packed.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise ValueError("it unpacks to more than any of these sets has")
            plain.write(block)
    return folder / path.name


def _read_cifar(known: NamedSet, files: list[Path]) -> tuple[_Part, _Part, tuple[str, ...]]:
    """Training and test images (n, 32, 32, 3) with their labels, and the names of the classes.

    The files are pickles, which can run any code when they are read. So only the authors' own are read, by
    their md5: to make another file of a given md5 is beyond anybody's means.
    """
    reader = _reader(known)
    from torchvision.datasets.utils import extract_archive

    with TemporaryDirectory() as folder:
        place = files[0].parent
        if files[0].name == known.archive:
            _check_md5(files[0], reader.tgz_md5)
            extract_archive(files[0], folder)
            place = Path(folder, reader.base_folder)
        meta = (reader.meta["filename"], reader.meta["md5"])
        for file, md5 in (*reader.train_list, *reader.test_list, meta):
            _check_md5(place / file, md5)
        here = type(reader.__name__, (reader,), {"base_folder": ""})
        train, test = here(place, train=True), here(place, train=False)
    parts = [(part.data, np.array(part.targets, np.int64)) for part in (train, test)]
    return parts[0], parts[1], tuple(train.classes)


def _check_md5(path: Path, md5: str) -> None:
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(path, md5):
        raise UserError(
            f"{path}: is missing, damaged or repacked (its md5 is not {md5}), and pickles of unknown origin "
            "are not read; fetch it again"
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
    raise UserError(f"{where}: one part of the set has {fault}; delete its files and fetch them again")


def _decode_digits(image_size: int | None) -> Decoded:
    from sklearn.datasets import load_digits  # a second to import

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    train, test = ((images[part], labels[part]) for part in hold_out_test(labels))
    names = tuple(str(name) for name in digits.target_names)
    return Decoded(train, test, names, image_size or images.shape[1], flip=False, test_from=HELD_OUT)
