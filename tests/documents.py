"""The code blocks of a Markdown page, and a folder in which they run as a reader would run them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

_FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """language: sh, python, ...; title: the file that a block is, empty when it is run; line: its first."""

    language: str
    title: str
    text: str
    line: int


def blocks(document: str) -> Iterator[Block]:
    """All fenced blocks with a language, in order, those in tabs as well."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', found[3])
        line = text[: found.start()].count("\n") + 2
        yield Block(found[2], title[1] if title else "", textwrap.dedent(found[4]), line)


def write_files(document: str, folder: Path) -> list[Path]:
    """Every titled block as the file that it is."""
    files = [(folder / block.title, block.text) for block in blocks(document) if block.title]
    for path, text in files:
        path.write_text(text, encoding="utf-8")
    return [path for path, _ in files]
