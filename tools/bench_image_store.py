"""A store of images by class at ImageNet's size, and its loading speed against ImageFolder.

    python tools/bench_image_store.py [--images 1281167] [--small 50000] [--files 20000] [--folder DIR]

Speed: photographs of 500x375 pixels, cut from the two that scikit-learn ships, as a store and as files. Random
resized crop, flip, normalize, a float batch; or shorter side to 8/7 of the crop, center crop, normalize.
Theirs: torchvision's ImageFolder and a DataLoader without workers. All in one process of one thread, in turn;
images a second of processor time, medians.

Memory: so many files of 48x48 pixels by a thousand classes (links to a few hundred JPEGs), and fewer of them
first, are imported by `facenas data import --classes` and read for one epoch of training at 32 pixels, each in
a process of its own. Told is the peak of each, and that of the epoch when a tenth of it was done.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from bench_loader import rate, theirs
from torchvision import transforms
from torchvision.datasets import ImageFolder

from facenas.data import DataConfig
from facenas.data.classes.importing import import_classes
from facenas.data.classes.store import open_image_store
from facenas.device import pick_device
from facenas.spaces import PlainArchitecture
from facenas.training.classification import ClassificationTask
from facenas.training.recipes import Recipe
from facenas.training.tasks import TaskContext

CLASSES, DISTINCT = 1000, 300
# A command, then its processor time and peak memory in kB: getrusage's is at least that of who started it.
RUN = """
import time
from pathlib import Path
from facenas.cli import main
try:
    main()
finally:
    status = Path("/proc/self/status").read_text()
    print(time.process_time(), status.partition("VmHWM:")[2].split()[0])
"""
RECIPE = Recipe(augment="random_resized_crop", cutout=0, batch_size=256)


def small_jpegs() -> list[bytes]:
    """48x48 pixels, about 1.5 kB each."""
    rng = np.random.default_rng(0)
    shapes = (
        cv2.resize(rng.uniform(0, 255, (8, 8, 3)), (48, 48), None, 0, 0, cv2.INTER_CUBIC)
        for _ in range(DISTINCT)
    )
    return [_jpeg(np.clip(shape + rng.normal(0, 3, shape.shape), 0, 255)) for shape in shapes]


def photographs() -> list[bytes]:
    """500x375 pixels, cut from real ones, about 60 kB each."""
    from sklearn.datasets import load_sample_image

    rng, found = np.random.default_rng(0), []
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    for number in range(DISTINCT):
        tall, wide = rng.integers(300, 427), rng.integers(400, 640)
        top, left = rng.integers(0, 427 - tall + 1), rng.integers(0, 640 - wide + 1)
        part = photos[number % 2][top : top + tall, left : left + wide]
        found.append(_jpeg(cv2.resize(part, (500, 375), interpolation=cv2.INTER_AREA)))
    return found


def _jpeg(pixels: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.astype(np.uint8)), 90, "RGB", "420")


def lay_out(jpegs: list[bytes], parts: dict[str, int], root: Path) -> Path:
    """<part>/<class>/<number>.JPEG, so many of each part: links to the few that are written."""
    for number, data in enumerate(jpegs):
        (root / "distinct").mkdir(parents=True, exist_ok=True)
        (root / "distinct" / f"{number}.jpg").write_bytes(data)
    for part, count in parts.items():
        for label in range(CLASSES):
            (root / "set" / part / f"n{label:08d}").mkdir(parents=True)
        for number in range(count):
            name = f"n{number % CLASSES:08d}/n{number % CLASSES:08d}_{number}.JPEG"
            os.link(root / "distinct" / f"{number % len(jpegs)}.jpg", root / "set" / part / name)
    return root / "set"


def task_on(store: Path, size: int) -> ClassificationTask:
    """A training's own way to its batches; the network does not run."""
    data = open_image_store(store, size)
    arch = PlainArchitecture.uniform(3, 4, data.in_channels, data.num_classes)
    return ClassificationTask(TaskContext(arch, data, DataConfig(), RECIPE, 0, 0, pick_device(), final=True))


def ours(store: Path, size: int) -> Iterator[int]:
    """Training batches without end; yields how many images each has."""
    task = task_on(store, size)
    for epoch in itertools.count():
        for batch in task.batches(epoch):
            yield len(task.prepare(*batch)[0])


def ours_judged(store: Path, size: int) -> Iterator[int]:
    """The same of what is judged."""
    task = task_on(store, size)
    while True:
        for images in task.feed.of(np.arange(task.images))():
            yield len(task.augment.normalize(images).contiguous(memory_format=torch.channels_last))


def folder(root: Path, size: int, judged: bool) -> Iterator[int]:
    """Torchvision's way to the same."""
    middle = [transforms.Resize(round(size * 8 / 7)), transforms.CenterCrop(size)]
    random = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    ends = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    chain = transforms.Compose([*(middle if judged else random), *ends])
    return theirs(ImageFolder(root, chain), RECIPE.batch_size)


def one_epoch(store: Path, answer: object) -> None:
    """Sends (images, seconds of processor time, peak memory in MiB at a tenth and at the end)."""
    torch.set_num_threads(1)
    task, seen, peaks = task_on(store, 32), 0, [0.0, 0.0]
    began = time.process_time()
    for batch in task.batches(0):
        seen += len(task.prepare(*batch)[0])
        peaks[seen > task.images // 10] = peak()
    answer.send((seen, time.process_time() - began, *peaks))  # type: ignore[attr-defined]


def run(*words: str) -> tuple[float, float]:
    """A command of facenas as a process of its own: (seconds of processor time, peak memory in MiB)."""
    command = [sys.executable, "-c", RUN, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, most = done.stdout.split()[-2:]
    return float(seconds), int(most) / 1024


def peak() -> float:
    """Of this process, in MiB, as Linux tells it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure_memory(images: int, root: Path) -> None:
    """Prints a row of the first table."""
    started = time.perf_counter()
    source, store = lay_out(small_jpegs(), {"train": images, "val": images // 25}, root), root / "set.zarr"
    print(f"<!-- {images:,} files made in {time.perf_counter() - started:.0f} s -->", flush=True)
    spent, most = run("data", "import", str(source), str(store), "--classes", "--workers", "1")
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 1e9
    rates = [f"{images * 26 // 25 / spent:,.0f}"]
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=one_epoch, args=(store, there))
    process.start()
    seen, spent, tenth, end = here.recv()
    process.join()
    rates.append(f"{seen / spent:,.0f}")
    cells = [f"{images:,}", f"{size:.2f} GB", rates[0], f"{most:.0f} MiB", rates[1]]
    print("|", " | ".join([*cells, f"{tenth:.0f} MiB", f"{end:.0f} MiB"]), "|", flush=True)


def measure_speed(files: int, seconds: float, rounds: int, root: Path) -> None:
    """Prints the second table."""
    source, store = lay_out(photographs(), {"train": files, "val": CLASSES}, root), root / "set.zarr"
    import_classes(source, store)
    for judged, size in itertools.product((False, True), (224, 64)):
        mine = (ours_judged if judged else ours)(store, size)
        like = folder(source / "train", size, judged)
        pairs = [(rate(mine, seconds), rate(like, seconds)) for _ in range(rounds)]
        found, other = (statistics.median(some) for some in zip(*pairs, strict=True))
        what = "resize, center crop" if judged else "random resized crop, flip"
        print(f"| {what} at {size} | {found:.0f} | {other:.0f} | {found / other:.1f}x |", flush=True)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--small", type=int, default=50_000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    scratch = partial(tempfile.TemporaryDirectory, dir=options.folder)
    if options.files:
        print("| one core, images/s | from a store | ImageFolder | ratio |\n|---|---|---|---|", flush=True)
        with scratch() as root:
            measure_speed(options.files, options.seconds, options.rounds, Path(root))
    if options.images:
        print("\n| images | store | import, images/s | peak | an epoch, images/s | peak at a tenth | peak |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for count in filter(None, (options.small, options.images)):
            with scratch() as root:
                measure_memory(count, Path(root))


if __name__ == "__main__":
    main()
