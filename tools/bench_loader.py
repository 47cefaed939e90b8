"""Loading speed of one core against ImageFolder with torchvision, AdaFace's chain, and the decoder alone.

    python tools/bench_loader.py [SOURCE] [--seconds 5] [--rounds 5] [--batch 128]

The same JPEG files of 112x112 pixels for all: those of SOURCE (a store of layout jpeg, or a folder or
.zip with a folder for each identity), or made up, about 7 kB each. Ours, from a store of JPEGs and
from one of raw pixels: read, decode, crop, low resolution and photometric with probability 0.2 each,
flip, normalise, a float batch with channels last. Theirs, a DataLoader without workers: (a)
ImageFolder with torchvision's crop, resizing and colour jitter with probability 0.2 each, flip,
ToTensor, Normalize, and the same with the flip alone; (b) AdaFace's chain: the same augmentations on
one Pillow image at a time, with JPEG bytes in memory. The decoder alone: simplejpeg, bytes in memory,
one buffer. All in one process of one thread, in turn; images per second of processor time, medians.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as F

from facenas.data.faces.augment import INTERPOLATIONS, FaceAugment
from facenas.data.faces.loader import FaceLoader, to_input
from facenas.data.faces.store import is_store, open_store
from facenas.data.faces.writer import StoreWriter
from facenas.data.images import image_names, open_files

IMAGES = 2048  # at most: all of them stay in the page cache
PROBABILITY = 0.2  # of each augmentation

Jpegs = list[tuple[str, bytes]]  # identity and file


def make_up(count: int) -> Jpegs:
    """Smooth shapes with a little noise: about the size, and the time to decode, of faces at quality 95."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        shapes = cv2.resize(rng.uniform(0, 255, (14, 14, 3)), (112, 112), None, 0, 0, cv2.INTER_CUBIC)
        pixels = np.clip(shapes + rng.normal(0, 3, shapes.shape), 0, 255).astype(np.uint8)
        found.append((f"{number // 8:04d}", simplejpeg.encode_jpeg(pixels, 95, "RGB", "420")))
    return found


def read(source: Path) -> Jpegs:
    """The first JPEG files of a store, a folder or a .zip."""
    if is_store(source):
        store = open_store(source)
        count = min(IMAGES, len(store))
        return [(store.names[store.labels[i]], bytes(store.encoded(i))) for i in range(count)]
    files = open_files(source)
    names = [name for name in image_names(files) if name.lower().endswith((".jpg", ".jpeg"))]
    return [(name.split("/")[-2], files.read(name)) for name in names[:IMAGES]]


def lay_out(jpegs: Jpegs, root: Path) -> None:
    """Writes them as a store of each layout, and as files for ImageFolder."""
    with (
        StoreWriter(root / "jpeg.zarr", "bench") as jpeg,
        StoreWriter(root / "raw.zarr", "bench", "raw") as raw,
    ):
        for number, (identity, data) in enumerate(jpegs):
            jpeg.add(identity, data)
            raw.add(identity, data)
            file = root / "files" / identity / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def ours(path: Path, batch: int) -> Iterator[int]:
    """Batches for the network, without end; yields how many images each has."""
    store = open_store(path)
    augment = FaceAugment(PROBABILITY, PROBABILITY, PROBABILITY, flip=True)
    everything = np.arange(len(store)), store.labels.astype(np.int64)
    loader = FaceLoader(store, *everything, batch, augment, seed=0)
    epoch = 0
    while True:
        for images, _ in loader.epoch(epoch):
            yield len(to_input(images))
        epoch += 1


def theirs(dataset: Dataset, batch: int) -> Iterator[int]:
    """The same with a DataLoader in this process."""
    loader = DataLoader(dataset, batch, shuffle=True)
    while True:
        for images, _ in loader:
            yield len(images)


def decoder(jpegs: Jpegs, batch: int) -> Iterator[int]:
    """The decoder and nothing else."""
    pixels = np.empty((112, 112, 3), np.uint8)
    while True:
        for start in range(0, len(jpegs), batch):
            part = jpegs[start : start + batch]
            for _, data in part:
                simplejpeg.decode_jpeg(data, "RGB", buffer=pixels)
            yield len(part)


def to_tensor() -> transforms.Compose:
    """What all of theirs end with."""
    normalize = transforms.Normalize([0.5] * 3, [0.5] * 3)
    return transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalize])


def augmented() -> transforms.Compose:
    """What torchvision has for the three augmentations."""
    steps = (
        [transforms.RandomResizedCrop(112, (0.2, 1.0), (3 / 4, 4 / 3))],
        [transforms.Resize(67), transforms.Resize(112)],  # the mean side of ours
        [transforms.ColorJitter(0.5, 0.5, 0.5)],
    )
    chosen = [transforms.RandomApply(step, PROBABILITY) for step in steps]
    return transforms.Compose([*chosen, to_tensor()])


class AdaFaceImages(Dataset):
    """One image at a time, with the steps of `mk-minchul/AdaFace:dataset/augmenter.py`."""

    def __init__(self, jpegs: Jpegs) -> None:
        self.jpegs, self.transform = jpegs, to_tensor()
        self.crop = transforms.RandomResizedCrop(112, (0.2, 1.0), (3 / 4, 4 / 3))
        self.jitter = transforms.ColorJitter(0.5, 0.5, 0.5)

    def __len__(self) -> int:
        return len(self.jpegs)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, str]:
        identity, data = self.jpegs[number]
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image = Image.fromarray(np.asarray(image)[:, :, ::-1])  # it trains on BGR
        for step in (self.cropped, self.low_resolution, self.jitter):
            if np.random.random() < PROBABILITY:
                image = step(image)
        return self.transform(image), identity

    def cropped(self, image: Image.Image) -> Image.Image:
        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        black = np.zeros_like(np.asarray(image))
        part = F.crop(image, top, left, height, width)
        black[top : top + height, left : left + width] = np.asarray(part)
        return Image.fromarray(black)

    def low_resolution(self, image: Image.Image) -> Image.Image:
        side = int(np.random.uniform(0.2, 1) * 112)
        down, up = np.random.choice(INTERPOLATIONS, 2).tolist()
        small = cv2.resize(np.asarray(image), (side, side), interpolation=down)
        return Image.fromarray(cv2.resize(small, (112, 112), interpolation=up))


def rate(batches: Iterator[int], seconds: float) -> float:
    """Images per second of processor time: other programs on the machine then count less."""
    next(batches)
    began, count = time.process_time(), 0
    while time.process_time() - began < seconds:
        count += next(batches)
    return count / (time.process_time() - began)


def measure(jpegs: Jpegs, root: Path, batch: int, seconds: float, rounds: int) -> dict[str, float]:
    """Median rate of each way; they are measured in turn, so that a slow minute hits all."""
    lay_out(jpegs, root)
    ways = {
        "ours, jpeg": ours(root / "jpeg.zarr", batch),
        "ours, raw": ours(root / "raw.zarr", batch),
        "(a) ImageFolder": theirs(ImageFolder(root / "files", augmented()), batch),
        "ImageFolder, flip alone": theirs(ImageFolder(root / "files", to_tensor()), batch),
        "(b) AdaFace": theirs(AdaFaceImages(jpegs), batch),
        "decoder alone": decoder(jpegs, batch),
    }
    rates = [{name: rate(way, seconds) for name, way in ways.items()} for _ in range(rounds)]
    return {name: statistics.median(found[name] for found in rates) for name in ways}


def main() -> None:
    """Prints a table: ways down, rates and ratios across."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    jpegs = read(arguments.source) if arguments.source else make_up(IMAGES)
    with tempfile.TemporaryDirectory() as root:
        rest = arguments.batch, arguments.seconds, arguments.rounds
        rates = measure(jpegs, Path(root), *rest)
    mean = statistics.mean(len(data) for _, data in jpegs)
    print(f"{len(jpegs)} JPEGs of {mean / 1000:.1f} kB; batch {arguments.batch}; medians of {arguments.rounds}")
    print("| one core | images/s | over (a) | over (b) | of the decoder |")
    print("|---|---|---|---|---|")
    against = [rates[name] for name in ("(a) ImageFolder", "(b) AdaFace", "decoder alone")]
    for name, found in rates.items():
        a, b, limit = (found / other for other in against)
        print(f"| {name} | {found:.0f} | {a:.1f}x | {b:.1f}x | {limit:.2f} |")


if __name__ == "__main__":
    main()
