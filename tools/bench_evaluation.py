"""Evaluation's speed against the peers' procedures, restated plainly; the numbers of both must be equal.

    OMP_NUM_THREADS=2 python tools/bench_evaluation.py [ten_fold] [tinyface] [ijb] [extraction]

ten_fold: 6,000 pairs. tinyface, ijb: official sizes, made-up embeddings and files; ijb takes five minutes,
most of it theirs. extraction: images per second of real networks on CPU (LFW by --images and --model, if
they are given) beside the same network run image by image. Named parts alone, else all.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from evaluation_bench import show

PARTS = ("ten_fold", "tinyface", "ijb", "extraction")


def main() -> None:
    """Prints a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--images", type=Path, help="of extraction: a folder or .zip of crops")
    parser.add_argument("--model", type=Path, help="of extraction: an .onnx file")
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        if name not in PARTS:
            parser.error(f"{name}: there are {', '.join(PARTS)}")
        part = importlib.import_module(f"evaluation_bench.{name}")
        extra = (arguments.images, arguments.model) if name == "extraction" else ()
        print(f"\n{name}")
        show(part.rows(*extra))


if __name__ == "__main__":
    main()
