"""Prints the lowest versions that pyproject.toml allows, as a constraints file for pip.

    python tools/lowest_versions.py [--extra onnx] [--keep torch torchvision] > constraints.txt

`numpy>=1.26` becomes `numpy==1.26`; a requirement without a lower bound gives no line, and neither do
the packages of --keep.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest(requirements: list[str], keep: set[str]) -> Iterator[str]:
    """`name==version` of every requirement that has a lower bound."""
    for requirement in requirements:
        found = re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", requirement)
        if found and found[1] not in keep:
            yield f"{found[1]}=={found[2]}"


def main() -> None:
    """Print the constraints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extra", nargs="*", default=[], help="extras to take in as well")
    parser.add_argument("--keep", nargs="*", default=[], help="packages to leave to pip")
    options = parser.parse_args()
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in options.extra:
        requirements += project["optional-dependencies"][extra]
    print("\n".join(lowest(requirements, set(options.keep))))


if __name__ == "__main__":
    main()
