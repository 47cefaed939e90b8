"""Builds the site strictly, as `make docs` does, from the working directory: docs/ -> site/. Fetches nothing.

python tools/build_docs.py

Zensical refuses dead links, anchors and names. This also refuses a public name that has no docstring or is not
in the reference, an image that is not there, and a page that would fetch something from elsewhere.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import zlib
from pathlib import Path

SITE = Path("site")
COMMAND_LINE = Path("docs/reference/command_line.md")
# All that their `__all__` names is public.
MODULES = (
    "facenas",
    "facenas.spaces",
    "facenas.strategies",
    "facenas.execution",
    "facenas.evaluation",
    "facenas.testing",
)


def main() -> int:
    """Prints what is wrong, and gives the exit code."""
    command = [sys.executable, "-m", "typer", "facenas.cli.app", "utils", "docs"]
    told = subprocess.run(
        [*command, "--name", "facenas", "--title", "Command line"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    COMMAND_LINE.write_text(told.stdout, encoding="utf-8")
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    if subprocess.run(build, check=False).returncode:
        return 1
    (SITE / "404.html").unlink(missing_ok=True)  # for a server: its links begin at the root
    faults = [*undocumented(), *broken_pages()]
    for fault in faults:
        print(fault, file=sys.stderr)
    return bool(faults)


def undocumented() -> list[str]:
    """Public names without a docstring of their own, or without a place in the reference."""
    inventory = (SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]
    known = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    faults = []
    for module in map(importlib.import_module, MODULES):
        for name in public_names(module):
            thing = getattr(module, name)
            if not (inspect.isclass(thing) or inspect.isroutine(thing)):
                continue
            if not thing.__doc__:
                faults.append(f"{module.__name__}.{name}: has no docstring")
            if f"{module.__name__}.{name}" not in known:
                faults.append(f"{module.__name__}.{name}: is not in the reference")
    return sorted(faults)


def public_names(module: object) -> list[str]:
    """`__all__`, or what the module itself defines without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__
    ]


def broken_pages() -> list[str]:
    """Pages that show or fetch what does not lie in the site."""
    faults = []
    for page in SITE.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        shown = re.findall(r"<(?:img|script|source|iframe)\b[^>]*?\bsrc=\"([^\"]+)", text)
        shown += re.findall(r"<link\b(?![^>]*rel=\"canonical)[^>]*?\bhref=\"([^\"]+)", text)
        for target in shown:
            if re.match(r"(https?:)?//", target):
                faults.append(f"{page}: fetches {target}")
            elif not target.startswith("data:") and not (page.parent / target.split("?")[0]).exists():
                faults.append(f"{page}: {target} is not there")
    for sheet in SITE.rglob("*.css"):
        faults += [
            f"{sheet}: fetches {url}" for url in re.findall(r"url\(['\"]?(https?:[^)]+)", sheet.read_text())
        ]
    return faults


if __name__ == "__main__":
    sys.exit(main())
