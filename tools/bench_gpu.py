"""What a card gives: our training against the scripts that it replaces, in one table and under 150 seconds.

    python tools/bench_gpu.py [--seconds 1.5] [--device cuda] [--out table.md]

Images per second of whole training steps, and how many times those of the peer.
* Candidates (depth x width, plain, all separable 3x3; batch 64 of 32x32 color images). Peer: the authors'
  loop, `siddikui/Efficient-Macro-Micro-NAS:search.py`: float32, Pillow transforms of one image at a time, a
  DataLoader of 2 workers, `loss.item()` every step. Ours: one captured step; four slots, each on a stream of
  its own; and with cuDNN free to choose sums in any order, which a search never has.
* Faces (a candidate of width 16 with 20 blocks, batch 64; ir18 and r58_256, batch 512). Peer: AdaFace's way,
  `mk-minchul/AdaFace:dataset/augmenter.py`: Pillow, one image at a time, in 16 DataLoader workers, float16
  autocast. Ours: from JPEGs in the host's memory; decoded once and resident on the card; and the limit, the
  same step on a batch that stays on the card. Without torch.compile, whose minute the table has not.
* A whole search, `facenas search --preset demo-digits`, with its start.
Each figure is of one run of `--seconds`, after the steps that warm up and capture.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_loader import AdaFaceImages, make_up
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from facenas.data import ImageSet
from facenas.data.config import DataConfig
from facenas.data.faces.store import open_store
from facenas.data.faces.writer import StoreWriter
from facenas.device import Device, named_device
from facenas.models.heads import HEADS
from facenas.spaces import IRArchitecture, PlainArchitecture
from facenas.spaces.ir import NAMED
from facenas.training.capture import CapturedSteps, cuda_graphs, side_stream, stream_of
from facenas.training.recipes import FaceRecipe, Recipe
from facenas.training.tasks import TaskContext, build_task
from facenas.training.trainer import Trainer

RECORDED = Path(__file__).parent.parent / "tests" / "recorded_searches"
TRAIN_IMAGES = {
    "CIFAR10": 50_000,
    "CIFAR100": 50_000,
    "EMNIST": 112_800,
    "FashionMNIST": 60_000,
    "KMNIST": 60_000,
}
CASIA = 490_623  # images of CASIA-WebFace
CANDIDATES = ((10, 64), (20, 64), (40, 32))
FACES = {
    "face candidate, 16 wide, 20 blocks": (IRArchitecture.uniform(16, (5, 5, 5, 5)), 64),
    "ir18": (NAMED["ir18"], 512),
    "r58_256": (NAMED["r58_256"], 512),
}
IMAGES = 12_800  # of 32x32
JPEGS, MADE = 8192, 2048  # of 112x112; every one lies there four times
SLOTS = 4
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


# What is measured.


def rate(epoch: Callable[[], int], seconds: float) -> float:
    """Images per second; `epoch` trains for a while, waits, and says on how many. The first call warms up."""
    epoch()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        count += epoch()
    return count / (time.perf_counter() - began)


def waited(some: Callable[[], int], device: Device) -> Callable[[], int]:
    """The same, and then the card has done it."""

    def run() -> int:
        count = some()
        if device.is_gpu:
            torch.cuda.synchronize(device.torch_device)
        return count

    return run


@contextmanager
def cudnn_free() -> Iterator[None]:
    """As others have it: cuDNN may choose sums in any order."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def make_images(count: int = IMAGES) -> ImageSet:
    """Random images: speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, count)
    classes = tuple("0123456789")
    halves = images, labels, images[:64], labels[:64]
    return ImageSet("bench", *halves, classes, MEAN, STD, flip=True, crop_size=32, fingerprint="bench")


# Candidates.


def candidate(depth: int, width: int, images: ImageSet, device: Device) -> Trainer:
    arch, recipe = PlainArchitecture.uniform(depth, width, 3, 10), Recipe()
    context = TaskContext(arch, images, DataConfig(), recipe, 0, 0, device, final=True)
    return Trainer(build_task(context), recipe, 1000, device)


def epochs_of(trainer: Trainer) -> Callable[[], int]:
    def epoch() -> int:
        trainer.run_epoch(0)
        return trainer.task.images

    return epoch


def slots(make: Callable[[], Trainer], count: int, seconds: float, device: Device) -> float:
    """Images per second of `count` trainings at once, in threads with a stream each."""
    ready, rates = threading.Barrier(count, timeout=60), []

    def slot() -> None:
        stream = torch.cuda.Stream(device.torch_device) if device.is_gpu else None
        try:
            with side_stream(stream):
                epoch = epochs_of(make())
                epoch()
                ready.wait()
                rates.append(rate(epoch, seconds))
        except BaseException:
            ready.abort()
            raise

    threads = [threading.Thread(target=slot) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


class Pictures(Dataset):
    """One image at a time, as the authors' transforms."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
                transforms.Lambda(self.cutout),
            ]
        )

    def __len__(self) -> int:
        return len(self.images.train_images)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images.train_images[number])), int(
            self.images.train_labels[number]
        )

    @staticmethod
    def cutout(image: Tensor) -> Tensor:
        mask = np.ones((32, 32), np.float32)
        row, column = np.random.randint(32), np.random.randint(32)
        mask[max(row - 8, 0) : row + 8, max(column - 8, 0) : column + 8] = 0
        return image * torch.from_numpy(mask).expand_as(image)


def authors(depth: int, width: int, images: ImageSet, device: Device) -> Callable[[], int]:
    """The authors' loop."""
    on = device.torch_device
    model = PlainArchitecture.uniform(depth, width, 3, 10).build(0).to(on)
    optimizer = torch.optim.SGD(model.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    loader = DataLoader(Pictures(images), 64, shuffle=True, **workers(2, device))
    batches = endless(loader)

    def some() -> int:
        for _ in range(20):
            pixels, labels = (part.to(on) for part in next(batches))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(pixels), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
            loss.item()
        return 20 * 64

    return some


def workers(count: int, device: Device) -> dict[str, Any]:
    count = min(count, os.cpu_count() or 1)
    forked = {"multiprocessing_context": "fork", "persistent_workers": True}
    return {"num_workers": count, "pin_memory": device.is_gpu, "drop_last": True, **forked}


def endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


# Faces.


def lay_out(jpegs: list[tuple[str, bytes]], path: Path) -> None:
    with StoreWriter(path, "bench") as store:
        for identity, data in jpegs:
            store.add(identity, data)


def face_trainer(arch: IRArchitecture, batch: int, store: Path, device: Device, residency: str) -> Trainer:
    config = DataConfig.model_validate({"validation_fraction": 0, "residency": residency})
    recipe = FaceRecipe(batch_size=batch, hold_out=False)
    context = TaskContext(arch, open_store(store), config, recipe, 0, 0, device, final=True)
    return Trainer(build_task(context), recipe, 1000, device)


def staying(trainer: Trainer, steps: int) -> Callable[[], int]:
    """The limit: the captured step on one prepared batch."""
    on = trainer.device.torch_device
    stream = stream_of(on)
    with side_stream(stream):
        inputs, labels = trainer.task.prepare(*next(iter(trainer.task.batches(0))))
        trainer.network.train()
    capture = cuda_graphs(on) if trainer.device.is_gpu else None
    captured = CapturedSteps(capture)

    def some() -> int:
        with side_stream(stream):
            for _ in range(steps):
                captured(lambda: trainer.learn(inputs, labels), ())
        return steps * len(labels)

    return some


class Numbered(Dataset):
    """AdaFace's chain, with numbers for names."""

    def __init__(self, jpegs: list[tuple[str, bytes]]) -> None:
        self.images = AdaFaceImages(jpegs)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        pixels, identity = self.images[number]
        return pixels, int(identity)


def adaface(
    arch: IRArchitecture, batch: int, jpegs: list[tuple[str, bytes]], device: Device, steps: int
) -> Callable[[], int]:
    """AdaFace's way."""
    on = device.torch_device
    model = arch.build(0).to(on)
    head = HEADS.get("adaface")(arch.embedding, 1 + int(jpegs[-1][0]), 0).to(on)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=5e-4)
    scaler = torch.amp.GradScaler(on.type, enabled=device.is_gpu)
    batches = endless(DataLoader(Numbered(jpegs), batch, shuffle=True, **workers(16, device)))

    def some() -> int:
        for _ in range(steps):
            pixels, labels = (part.to(on, non_blocking=True) for part in next(batches))
            optimizer.zero_grad()
            with torch.autocast(on.type, torch.float16, enabled=device.is_gpu):
                logits = head(model(pixels), labels)
            scaler.scale(F.cross_entropy(logits.float(), labels)).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, 5)
            scaler.step(optimizer)
            scaler.update()
        return steps * batch

    return some


def memory(device: Device) -> float:
    """GB that were allocated at most since the last call."""
    if not device.is_gpu:
        return 0.0
    peak = torch.cuda.max_memory_allocated(device.torch_device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device.torch_device)
    return peak / 1e9


# The table.


def bench_candidates(
    seconds: float, device: Device, sizes: tuple = CANDIDATES, count: int = IMAGES
) -> list[str]:
    images, rates, gain = make_images(count), {}, 1.0
    lines = [
        "| candidate | MACs | authors' way | one, captured | x | four slots | x | cuDNN free | GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for depth, width in sizes:
        make = lambda depth=depth, width=width: candidate(depth, width, images, device)  # noqa: E731
        macs = PlainArchitecture.uniform(depth, width, 3, 10).count_macs(32)
        with cudnn_free():
            theirs = rate(authors(depth, width, images, device), seconds)
        memory(device)
        trainer = make()
        one = rate(epochs_of(trainer), seconds)
        note = "" if trainer.steps.graphs or not device.is_gpu else " (not captured)"
        four = slots(make, SLOTS, seconds, device)
        peak = memory(device)
        with cudnn_free():
            free = rate(epochs_of(make()), seconds)
        lines.append(
            f"| {depth} x {width}{note} | {macs / 1e6:.0f} M | {theirs:,.0f} | {one:,.0f} | {one / theirs:.1f} "
            f"| {four:,.0f} | {four / theirs:.1f} | {free:,.0f} | {peak:.1f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
        rates[depth, width] = one
        gain = four / one if (depth, width) == CANDIDATES[1] else gain
    return [*lines, "", *recorded_costs(rates, gain)]


def bench_faces(
    seconds: float, device: Device, networks: dict[str, tuple[IRArchitecture, int]], count: int
) -> list[str]:
    jpegs, rates = make_up(min(count, MADE)) * max(1, count // MADE), []
    lines = [
        "| faces | MACs | AdaFace's way | ours, JPEG | x | ours, resident | x | batch stays | of it | GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "faces.zarr"
        lay_out(jpegs, store)
        for name, (arch, batch) in networks.items():
            steps = max(1, count // batch // 8)
            with cudnn_free():
                theirs = rate(waited(adaface(arch, batch, jpegs, device, steps), device), seconds)
            memory(device)
            build = lambda where, arch=arch, batch=batch: face_trainer(arch, batch, store, device, where)  # noqa: E731
            host = rate(epochs_of(build("host")), seconds)
            trainer = build("device")
            resident = rate(epochs_of(trainer), seconds)
            peak = memory(device)
            limit = rate(waited(staying(trainer, steps), device), seconds)
            del trainer
            lines.append(
                f"| {name}, batch {batch} | {arch.count_macs(112) / 1e6:,.0f} M | {theirs:,.0f} | {host:,.0f} "
                f"| {host / theirs:.1f} | {resident:,.0f} | {resident / theirs:.1f} | {limit:,.0f} "
                f"| {resident / limit:.2f} | {peak:.1f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
            rates.append(resident)
    epochs = [trial["epochs"] for trial in macro_trials(RECORDED / "cifar10-tiny.json")]
    hours = CASIA * sum(epochs) / rates[0] / 3600
    return [
        *lines,
        "",
        f"`small` on {CASIA:,} images, if it goes as cifar10-tiny's macro search ({len(epochs)} trials, "
        f"{sum(epochs):,} epochs) with candidates like {next(iter(networks))}: {hours:.0f} h in one slot.",
    ]


def macro_trials(path: Path) -> list[dict[str, Any]]:
    log = json.loads(path.read_text(encoding="utf-8"))
    return [trial for trial in log["trials"] if trial["phase"] in ("depth", "width")]


def recorded_costs(rates: dict[tuple[int, int], float], four: float) -> list[str]:
    """What the authors' recorded searches would take here.

    rates: images per second by depth and width. A step's time is fitted as that of so many layers and so many
    multiply-accumulates; four: how many times the rate of one slot four have together.
    """
    rows = [(depth, PlainArchitecture.uniform(depth, width, 3, 10).count_macs(32)) for depth, width in rates]
    fit, *_ = np.linalg.lstsq(np.array(rows, float), 1 / np.array(list(rates.values())), rcond=None)
    lines = ["| recorded search | trials | on their card | one slot | four slots |", "|---|---|---|---|---|"]
    for path in sorted(RECORDED.glob("*-tiny.json")):
        log = json.loads(path.read_text(encoding="utf-8"))
        images = TRAIN_IMAGES[log["dataset"]]
        shapes = ((trial["depth"], macs_of(trial, log["input_channels"])) for trial in log["trials"])
        epochs = (trial["epochs"] for trial in log["trials"])
        seconds = sum(images * count * float(fit @ shape) for shape, count in zip(shapes, epochs, strict=True))
        hours = log["final"]["search_seconds"] / 3600
        lines.append(
            f"| {log['name']} | {len(log['trials'])} | {hours:.2f} h | {seconds / 60:.0f} min "
            f"| {seconds / 60 / four:.0f} min |"
        )
    return lines


def macs_of(trial: dict[str, Any], channels: int) -> int:
    operations, kernels = tuple(trial["ops"]), tuple(trial["kernels"])
    return PlainArchitecture(trial["width"], operations, kernels, channels, 10).count_macs(32)


def bench_search(preset: str = "demo-digits") -> list[str]:
    """A whole search by the command line, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "facenas.cli", "search", "--preset", preset, "--run", "bench"]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        taken = time.perf_counter() - began
        if done.returncode:
            return [f"{preset}: failed: {done.stderr.strip().splitlines()[-1]}"]
        journal = (Path(folder) / "runs" / "bench" / "trials.jsonl").read_text(encoding="utf-8")
    trials = journal.count("\n")
    return [f"`facenas search --preset {preset}`: {taken:.1f} s, {60 * trials / taken:.0f} trials a minute"]


def about(device: Device) -> str:
    on = device.torch_device
    name = torch.cuda.get_device_name(on) if device.is_gpu else "CPU"
    precision = "bf16" if device.bf16 else "float32"
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, {precision}; images a second."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    began = time.perf_counter()
    device = named_device(arguments.device)
    parts = (
        lambda: bench_search(),
        lambda: bench_candidates(arguments.seconds, device),
        lambda: bench_faces(arguments.seconds, device, FACES, JPEGS),
    )
    lines = [about(device)]
    for part in parts:
        lines += ["", *part()]
        if arguments.out:  # what there is survives what comes after it
            arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines += ["", f"In all {time.perf_counter() - began:.0f} s."]
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
