"""Time and memory of an import at full size, from RecordIO made of other images repeated.

    python tools/bench_import.py SOURCE [--images 490623] [--identities 10572] [--folder DIR]

SOURCE: a store of layout jpeg, or a folder or .zip of 112x112 JPEGs by identity. Writes train.rec, train.idx
and property in InsightFace's layout into DIR (a temporary folder; about 6 kB an image, and as much again for
the store), then runs `facenas data import` and `facenas data check` on them as processes of their own.
"""

from __future__ import annotations

import argparse
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from bench_loader import read

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


def timed(*words: str) -> tuple[str, float, float]:
    """(what the command printed, seconds, peak memory in MiB of all commands so far)."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "facenas.cli", *words, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return done.stdout.strip(), time.perf_counter() - started, peak


def main() -> None:
    """Writes, imports, checks, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=490_623)
    parser.add_argument("--identities", type=int, default=10_572)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    jpegs = [data for _, data in read(options.source)]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_records(jpegs, options.images, options.identities, folder)
        size = (folder / "train.rec").stat().st_size / 1e9
        print(f"{options.images} images, {options.identities} identities, {size:.2f} GB of records")
        print("| command | seconds | images/s | peak memory |\n|---|---|---|---|")
        store = str(folder / "store.zarr")
        for words in (("data", "import", str(folder), store), ("data", "check", store)):
            _, seconds, peak = timed(*words)
            rate = options.images / seconds
            print(f"| {' '.join(words[:2])} | {seconds:.1f} | {rate:.0f} | {peak:.0f} MiB |")


if __name__ == "__main__":
    main()
