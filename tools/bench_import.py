"""Time and memory of an import at full size, from RecordIO made of other images repeated.

    python tools/bench_import.py SOURCE [--images 490623] [--identities 10572] [--workers 1 2] [--folder DIR]
    python tools/bench_import.py --flat --images 3000000 --identities 2059906    # a part of WebFace42M
    python tools/bench_import.py --index --images 42474558 --identities 2059906  # what its size costs in memory

SOURCE: a store of layout jpeg, or a folder or .zip of 112x112 JPEGs by identity; --flat: grey squares, 0.7 kB
each. Writes train.rec, train.idx and property in InsightFace's layout into DIR (a temporary folder; about 6 kB
an image of faces, and as much again for the store), then runs `facenas data import` and `facenas data check` on
them as processes of their own. Memory is that of a command and its workers, looked at ten times a second.
--index writes no images, but an .idx and a store's labels and offsets, and opens both as an import and a
training do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import simplejpeg
from bench_loader import read

from facenas.data import DataConfig
from facenas.data.faces.augment import FaceAugment
from facenas.data.faces.loader import FaceLoader
from facenas.data.faces.record_io import Index
from facenas.data.faces.splits import relabelled
from facenas.data.faces.store import open_store
from facenas.data.faces.writer import StoreWriter

MAGIC = struct.pack("<I", 0xCED7230A)


def chunks(payload: bytes) -> Iterator[bytes]:
    """A record's bytes on disk: split, and shorn of the magic, wherever that stands at a multiple of four."""
    cuts = [i for i in range(0, len(payload) - 3, 4) if payload.startswith(MAGIC, i)]
    starts = [0, *(cut + 4 for cut in cuts)]
    parts = [payload[start:stop] for start, stop in zip(starts, [*cuts, None], strict=True)]
    for number, part in enumerate(parts):
        flag = 0 if len(parts) == 1 else 1 if number == 0 else 3 if part is parts[-1] else 2
        yield MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + bytes(-len(part) % 4)


def records(jpegs: list[bytes], images: int, identities: int) -> Iterator[tuple[int, bytes]]:
    """(key, payload): images from key 1 on, identities, then record 0, which tells where these begin."""
    labels = np.sort(np.arange(images) % identities)
    starts = np.searchsorted(labels, np.arange(identities + 1)) + 1
    for key in range(1, images + 1):
        head = struct.pack("<IfQQ", 0, labels[key - 1], key, 0)
        yield key, head + jpegs[key % len(jpegs)]
    for i in range(identities):
        key = images + 1 + i
        yield key, struct.pack("<IfQQff", 2, 0, key, 0, starts[i], starts[i + 1])
    yield 0, struct.pack("<IfQQff", 2, 0, 0, 1, images + 1, images + 1 + identities)


def write_records(jpegs: list[bytes], images: int, identities: int, folder: Path) -> None:
    """The three files of `faces_webface_112x112`."""
    with (folder / "train.rec").open("wb") as rec, (folder / "train.idx").open("w") as index:
        for key, payload in records(jpegs, images, identities):
            index.write(f"{key}\t{rec.tell()}\n")
            rec.writelines(chunks(payload))
    (folder / "property").write_text(f"{identities},112,112\n")


def flat(count: int = 16) -> list[bytes]:
    """JPEGs of one grey each."""
    shades = np.linspace(0, 255, count).astype(np.uint8)
    return [simplejpeg.encode_jpeg(np.full((112, 112, 3), shade), 95, "RGB", "420") for shade in shades]


def timed(*words: str) -> tuple[float, float, list[float]]:
    """Of a command with its workers: seconds, of processor time too, and MiB in use every tenth of a second."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [sys.executable, "-m", "facenas.cli", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        used = []
        while process.poll() is None:
            used.append(memory_of(process.pid))
            time.sleep(0.1)
    used = used[:-1] or [0.0]  # it may have been about to end
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, used


def memory_of(pid: int) -> float:
    """MiB that are resident, of a process and its children; what they share counts for each."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                total += one.memory_info().rss
    return total / 2**20


def measure_index(folder: Path, images: int, identities: int) -> None:
    """What an import holds of the .idx, and a training of labels and offsets, each in a process of its own."""
    with (folder / "train.idx").open("w") as index:
        for first in range(0, images, 1 << 16):
            some = range(first, min(first + (1 << 16), images))
            index.write("".join(f"{key}\t{key * 4096}\n" for key in some))
    with StoreWriter(folder / "store.zarr", "made up", numbered=identities) as writer:
        writer.add("0", flat(1)[0])
        for first in range(1, images, 1 << 16):
            rows = np.arange(first, min(first + (1 << 16), images))
            writer._append("labels", rows % identities)
            writer._append("offsets", np.full(len(rows), writer._arrays["jpeg"].rows))
            writer.images += len(rows)
    print("| step | seconds | MiB resident, of them of files |\n|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for steps in (read_index, open_and_train):
        process = context.Process(target=steps, args=(folder,))
        process.start()
        process.join()


def read_index(folder: Path) -> None:
    """The index of an import."""
    print(f"| (everything imported) | | {resident()} |")
    step("an import's index", lambda: Index(folder / "train.idx"))


def open_and_train(folder: Path) -> None:
    """What a training does before its first batch."""
    from facenas.training.faces import split_faces

    print(f"| (everything imported) | | {resident()} |")
    store = step("store opened", lambda: open_store(folder / "store.zarr"))
    train, *_ = step("identities held out", lambda: split_faces(store.labels, DataConfig(name="x"), 0))
    labels = step("relabelled", lambda: relabelled(store.labels[train]))
    loader = FaceLoader(store, train, labels, 512, FaceAugment(0.2, 0.2, 0.2, True), 0)
    step("first batch of an epoch drawn", lambda: next(loader.drawn(0)))


def step(name: str, work: Callable[[], Any]) -> Any:
    """What `work` gives; prints its time, and the memory of this process afterwards."""
    started = time.perf_counter()
    result = work()
    print(f"| {name} | {time.perf_counter() - started:.1f} | {resident()} |", flush=True)
    return result


def resident() -> str:
    """MiB of this process now and at most so far."""
    info = psutil.Process().memory_info()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{info.rss / 2**20:.0f}, {info.shared / 2**20:.0f}; at most {peak:.0f}"


def main() -> None:
    """Writes, imports, checks, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--flat", action="store_true", help="grey squares in place of SOURCE")
    parser.add_argument("--index", action="store_true", help="memory of index, labels and offsets alone")
    parser.add_argument("--images", type=int, default=490_623)
    parser.add_argument("--identities", type=int, default=10_572)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    if not options.source and not options.flat and not options.index:
        parser.error("give SOURCE, --flat or --index")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.index:
            measure_index(Path(name), options.images, options.identities)
        else:
            jpegs = flat() if options.flat else [data for _, data in read(options.source)]
            measure(jpegs, options.images, options.identities, options.workers, Path(name))


def measure(jpegs: list[bytes], images: int, identities: int, workers: list[int], folder: Path) -> None:
    """Import and check by each number of workers."""
    write_records(jpegs, images, identities, folder)
    size = (folder / "train.rec").stat().st_size / 1e9
    print(f"{images} images, {identities} identities, {size:.2f} GB of records", flush=True)
    print("| command | workers | seconds | images/s | processor s | MiB at 10 % | 50 % | 100 % | most |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    store = str(folder / "store.zarr")
    for count in workers:
        for words in (("data", "import", str(folder), store, "--overwrite"), ("data", "check", store)):
            seconds, busy, used = timed(*words, "--workers", str(count))
            at = [used[round(part * (len(used) - 1))] for part in (0.1, 0.5, 1)]
            memory = " | ".join(f"{value:.0f}" for value in (*at, max(used)))
            rate = images / seconds
            print(
                f"| {' '.join(words[:2])} | {count} | {seconds:.1f} | {rate:.0f} | {busy:.1f} | {memory} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
