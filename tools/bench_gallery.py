"""How fast a face is looked up in a gallery of a million people, beside what the memory allows.

    python tools/bench_gallery.py [--people 1000000] [--size 512] [--folder DIR]

Writes random unit vectors (2 GB) into DIR, a temporary folder by default. The limit is the time in which numpy
sums the whole matrix in memory, once over: a search has to read each number too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.gallery import search

BLOCK = 50_000  # rows made at once
PROBES = (1, 16, 64)


def write_templates(path: Path, people: int, size: int) -> None:
    """Random unit vectors (people, size) float32 as an .npy file, in constant memory."""
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (people, size))
    for start in range(0, people, BLOCK):
        block = rng.standard_normal((min(BLOCK, people - start), size), np.float32)
        rows[start : start + BLOCK] = block / np.linalg.norm(block, axis=1, keepdims=True)
    rows.flush()


def best_of(what: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of some calls."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        what()
        found.append(time.perf_counter() - started)
    return min(found)


def measure(path: Path) -> None:
    """Prints a table in Markdown."""
    mapped: NDArray[np.float32] = np.load(path, mmap_mode="r")
    probes = np.array(mapped[: max(PROBES)])
    started = time.perf_counter()
    search(mapped, probes[:1], 5)
    first = time.perf_counter() - started
    memory = np.array(mapped)
    limit = best_of(memory.sum)
    print(f"{len(mapped):,} people, {mapped.shape[1]} numbers each, {memory.nbytes / 1e9:.2f} GB\n")
    print("| what | seconds | a probe | to the limit |\n|---|---|---|---|")
    print(f"| one sum over the matrix: the limit | {limit:.3f} | | 1.0 |")
    print(f"| 1 probe, file just mapped | {first:.3f} | {first:.3f} | {first / limit:.1f} |")
    for place, templates in (("mapped", mapped), ("in memory", memory)):
        for count in PROBES:
            seconds = best_of(lambda: search(templates, probes[:count], 5), 3)  # noqa: B023
            each, ratio = seconds / count, seconds / limit
            print(f"| {count} probes, {place} | {seconds:.3f} | {each:.3f} | {ratio:.1f} |")
    _, numbers = search(mapped, probes, 1)
    assert numbers[:, 0].tolist() == list(range(len(probes)))


def main() -> None:
    """Makes the file, measures, and removes it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "templates.npy"
        write_templates(path, arguments.people, arguments.size)
        measure(path)


if __name__ == "__main__":
    main()
