"""How fast a face is looked up in a gallery of a million people, in float32 and int8, and what memory allows.

    OMP_NUM_THREADS=1 python tools/bench_gallery.py [--people 1000000] [--size 512] [--folder DIR]
    python tools/bench_gallery.py --embeddings crops.npz

The first writes random unit vectors (2.5 GB) into DIR, a temporary folder by default, and tells seconds of the
processor: on one thread those of the clock, but for what else the machine does. The limit is what numpy takes
to sum the whole matrix of floats, once over: a search has to read each number too. The second takes what
`facenas embed` wrote of <person>/<image>, enrolls the first image of everybody, and tells how often the others
find their person at rank 1 in either.
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
from facenas.evaluation.int8_rows import Int8Rows, int8_rows

BLOCK = 50_000  # rows made at once
PROBES = (1, 16, 64, 256)


def write_templates(folder: Path, people: int, size: int) -> tuple[Path, Path, Path]:
    """Random unit vectors (people, size) as .npy files, float32, int8 and its steps, in constant memory."""
    rng = np.random.default_rng(0)
    paths = folder / "templates.npy", folder / "int8.npy", folder / "steps.npy"
    kinds = (np.float32, (people, size)), (np.int8, (people, size)), (np.float32, (people,))
    files = [np.lib.format.open_memmap(path, "w+", *kind) for path, kind in zip(paths, kinds, strict=True)]
    for start in range(0, people, BLOCK):
        block = rng.standard_normal((min(BLOCK, people - start), size), np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        for file, part in zip(files, (block, *int8_rows(block)), strict=True):
            file[start : start + BLOCK] = part
    for file in files:
        file.flush()
    return paths


def best_of(what: Callable[[], object], times: int = 5) -> float:
    """Seconds of the processor, of the fastest of some calls."""
    found = []
    for _ in range(times):
        started = time.process_time()
        what()
        found.append(time.process_time() - started)
    return min(found)


def measure(folder: Path, people: int, size: int) -> None:
    """Prints a table in Markdown."""
    whole, values, steps = write_templates(folder, people, size)
    mapped: NDArray[np.float32] = np.load(whole, mmap_mode="r")
    small = Int8Rows(np.load(values, mmap_mode="c"), np.load(steps, mmap_mode="c"))
    probes = np.array(mapped[: max(PROBES)])
    first = best_of(lambda: search(mapped, probes[:1], 5), 1)
    limit = best_of(mapped.sum)
    sizes = [sum(part.nbytes for part in parts) / 1e9 for parts in ((mapped,), small)]
    print(f"{people:,} people, {size} numbers each: {sizes[0]:.2f} GB, in int8 {sizes[1]:.2f} GB\n")
    print("| what | seconds | a probe | to the limit |\n|---|---|---|---|")
    print(f"| one sum over the matrix: the limit | {limit:.3f} | | 1.0 |")
    print(f"| 1 probe, file just mapped | {first:.3f} | {first:.3f} | {first / limit:.1f} |")
    for count in PROBES:
        for kind, templates in (("float32", mapped), ("int8", small)):
            seconds = best_of(lambda: search(templates, probes[:count], 5), 3)  # noqa: B023
            each, ratio = seconds / count, seconds / limit
            print(f"| {count} probes, {kind} | {seconds:.3f} | {each:.4f} | {ratio:.1f} |")
    for templates in (mapped, small):
        _, numbers = search(templates, probes, 1)
        assert numbers[:, 0].tolist() == list(range(len(probes)))


def recall(path: Path) -> None:
    """Prints rank 1 of both, and how often they name the same person."""
    with np.load(path) as file:
        names, rows = file["names"].tolist(), file["embeddings"]
    owners = [name.rpartition("/")[0] for name in names]
    people: dict[str, int] = {}
    enrolled = [at for at, owner in enumerate(owners) if people.setdefault(owner, at) == at]
    asked = np.setdiff1d(np.arange(len(names)), enrolled)
    own = np.array([people[owners[at]] for at in asked])
    found = {}
    for kind, templates in (("float32", rows[enrolled]), ("int8", int8_rows(rows[enrolled]))):
        found[kind] = np.array(enrolled)[search(templates, rows[asked], 1)[1][:, 0]]
        print(f"{kind}: rank 1 {100 * (found[kind] == own).mean():.3f} % of {len(asked):,} images")
    same = (found["float32"] == found["int8"]).mean()
    print(f"of {len(enrolled):,} people, both name the same one for {100 * same:.3f} %")


def main() -> None:
    """Makes the files, measures, and removes them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--embeddings", type=Path, help="An .npz of facenas embed.")
    arguments = parser.parse_args()
    if arguments.embeddings:
        recall(arguments.embeddings)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), arguments.people, arguments.size)


if __name__ == "__main__":
    main()
