"""Training speed against a plain DataLoader with per-image PIL transforms, as the authors train.

    python tools/bench_training.py [--seconds 20] [--networks 10x16 10x64]

Same networks (depth x width, all separable 3x3), batch 64 of 32x32 colour images, pad-crop-flip-normalise-
cutout, SGD, gradient clipping. Ours: one spawned worker for every core, one thread each, as a search
runs. Theirs: one process, torchvision transforms, a DataLoader with 2 workers, default memory format and
optimiser, at the best of all thread settings. Whole-machine images per second, each timed in turn
several times; beside them the matrix-multiply rate of all cores, and the part of it that training reaches
(forward and backward are counted as three times the multiply-adds of the forward pass).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

BATCH = 64
IMAGES = 2048
STARTING = 10  # seconds until all workers have imported torch and warmed up
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


def make_images():
    """Random images as an image set: speed does not depend on what they show."""
    import numpy as np

    from facenas.data import ImageSet

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, IMAGES)
    classes = tuple("0123456789")
    halves = images, labels, images[:BATCH], labels[:BATCH]
    return ImageSet("bench", *halves, classes, MEAN, STD, flip=True, crop_size=32, fingerprint="")


def ours(depth: int, width: int, seconds: float, start: float) -> float:
    """Images per second of one worker from time `start` on."""
    import torch

    from facenas.data.config import DataConfig
    from facenas.device import pick_device
    from facenas.spaces import PlainArchitecture
    from facenas.training.classification import ClassificationTask
    from facenas.training.recipes import Recipe
    from facenas.training.tasks import TaskContext
    from facenas.training.trainer import Trainer

    torch.set_num_threads(1)
    arch = PlainArchitecture.uniform(depth, width, 3, 10)
    device, recipe = pick_device(), Recipe()
    context = TaskContext(arch, make_images(), DataConfig(), recipe, 0, 0, device, final=True)
    task = ClassificationTask(context)
    training = Trainer(task, recipe, 1000, device)

    def batches():
        while True:
            yield from task.batches(0)

    return _rate(batches(), lambda batch: training.step(*batch), seconds, start)


def theirs(depth: int, width: int, seconds: float, threads: int) -> float:
    """Images per second of the authors' way, in one process of `threads` threads and two loader workers."""
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn
    from torchvision import transforms

    from facenas.spaces import PlainArchitecture

    torch.set_num_threads(threads)

    class Pictures(torch.utils.data.Dataset):
        def __init__(self) -> None:
            images = make_images()
            self.data, self.targets = images.train_images, images.train_labels
            self.transform = transforms.Compose(
                [
                    transforms.RandomCrop(32, padding=4),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(MEAN, STD),
                    transforms.Lambda(cutout),
                ]
            )

        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, i: int):
            return self.transform(Image.fromarray(self.data[i])), int(self.targets[i])

    def cutout(image, length: int = 16):
        """As in the authors' utils.py: a numpy mask, one image at a time."""
        height, width_ = image.shape[1:]
        mask = np.ones((height, width_), np.float32)
        row, column = np.random.randint(height), np.random.randint(width_)
        half = length // 2
        mask[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0
        return image * torch.from_numpy(mask).expand_as(image)

    model = PlainArchitecture.uniform(depth, width, 3, 10).build(0)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    loader = torch.utils.data.DataLoader(
        Pictures(), BATCH, shuffle=True, num_workers=2, multiprocessing_context="fork"
    )

    def batches():
        while True:
            yield from loader

    def step(batch) -> None:
        images, labels = batch
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        loss.item()

    return _rate(batches(), step, seconds, 0.0)


def matmul_rate(seconds: float, start: float) -> float:
    """Multiply-adds per second of one thread on 512x512 float32 matrices."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.rand(512, 512), torch.rand(512, 512)
    return _rate(iter(lambda: None, 0), lambda _: a @ b, seconds, start, images=512**3)


def _rate(batches, step: Callable, seconds: float, start: float, images: int = BATCH) -> float:
    for _ in range(3):
        step(next(batches))
    while time.time() < start:  # all workers are measured over the same seconds
        step(next(batches))
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step(next(batches))
        count += 1
    return images * count / (time.perf_counter() - began)


def in_processes(function: Callable, arguments: tuple, count: int, threads: int) -> float:
    """Sum of what `count` fresh processes return, each with `threads` threads."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(function, *arguments) for _ in range(count)]
        return sum(future.result() for future in futures)


def main() -> None:
    """Prints a table: networks down, rates and ratios across."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["10x16", "10x64"])
    arguments = parser.parse_args()
    seconds, cores = arguments.seconds, len(os.sched_getaffinity(0))

    print(f"{cores} cores; medians of {arguments.rounds} rounds")
    print("| network | ours, images/s | theirs (threads) | ratio | matrix multiply | we reach |")
    print("|---|---|---|---|---|---|")
    for network in arguments.networks:
        depth, width = map(int, network.split("x"))
        fast, matmul, slow = [], [], {threads: [] for threads in range(1, cores + 1)}
        for _ in range(arguments.rounds):
            start = time.time() + STARTING
            fast.append(in_processes(ours, (depth, width, seconds, start), cores, 1))
            matmul.append(in_processes(matmul_rate, (3.0, time.time() + STARTING), cores, 1))
            for threads, rates in slow.items():
                rates.append(in_processes(theirs, (depth, width, seconds, threads), 1, threads))
        print(_row(network, fast, slow, statistics.median(matmul)), flush=True)


def _row(network: str, fast: list[float], slow: dict[int, list[float]], matmul: float) -> str:
    from facenas.spaces import PlainArchitecture

    depth, width = map(int, network.split("x"))
    macs = PlainArchitecture.uniform(depth, width, 3, 10).count_macs(32)
    rate = statistics.median(fast)
    threads, best = max(
        ((threads, statistics.median(rates)) for threads, rates in slow.items()), key=lambda x: x[1]
    )
    return (
        f"| {network} | {rate:.0f} | {best:.0f} ({threads}) | {rate / best:.2f}x |"
        f" {matmul / 1e9:.0f} G/s | {100 * 3 * macs * rate / matmul:.0f} % |"
    )


if __name__ == "__main__":
    main()
