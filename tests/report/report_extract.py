"""What a page shows, as lines of text that can be compared: headings, sentences, tables, drawings, charts."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

_SHOWN = {
    "h1",
    "h2",
    "h3",
    "h4",
    "p",
    "dt",
    "dd",
    "th",
    "td",
    "option",
    "summary",
    "li",
    "figcaption",
    "footer",
}


class Page(HTMLParser):
    """Tags with their attributes, and figures by name; `lines` is the extract."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, Any] = {}
        self.lines: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._row: list[str] | None = None
        self.feed(html)
        self.lines = [" ".join(line.split()) for line in self.lines if line.split()]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in ("meta", "br", "wbr", "img", "input"):
            self._open.append((tag, found))
        if tag == "tr":
            self._row = []
        elif tag in _SHOWN or "block" in (found.get("class") or "").split():
            kind = (found.get("class") or "").removeprefix("block ") if tag == "span" else tag
            self._begin(f"[{kind}] " if tag == "span" else "", cell=tag in ("td", "th"))

    def _begin(self, head: str, cell: bool) -> None:
        if cell and self._row is not None:
            self._row.append("")
        else:
            self.lines.append(head)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass
        if tag == "tr" and self._row is not None:
            self.lines.append("| " + " | ".join(" ".join(cell.split()) for cell in self._row))
            self._row = None

    def handle_data(self, data: str) -> None:
        tag, attrs = self._open[-1] if self._open else ("", {})
        if tag == "script":
            if attrs.get("type") == "application/json":
                self.figures[str(attrs["id"]).removeprefix("figure-")] = json.loads(data)
        elif any(name in _SHOWN or "block" in (a.get("class") or "").split() for name, a in self._open):
            if self._row is not None and self._row:
                self._row[-1] += data
            elif self.lines:
                self.lines[-1] += data

    def text(self) -> str:
        """All lines as one."""
        return " ".join(self.lines)

    def find(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """Attributes of all `tag`s that have the `wanted` ones (`class_` for class)."""
        items = {key.rstrip("_").replace("_", "-"): value for key, value in wanted.items()}.items()
        return [attrs for name, attrs in self.tags if name == tag and items <= attrs.items()]

    def extract(self) -> str:
        """The lines, then every chart: titles of its scales, and of each trace name, x, y."""
        lines = list(self.lines)
        for name, figure in self.figures.items():
            axes = [axis for key, axis in figure["layout"].items() if key[1:5] == "axis"]
            lines.append(f"chart {name}: {' / '.join(axis['title']['text'] for axis in axes)}")
            for trace in figure["data"]:
                lines.append(f"  {trace.get('name') or trace['type']}: {_numbers(trace['x'])}")
                lines.append(f"    {_numbers(trace.get('z') or trace['y'])}")
        return "\n".join(lines) + "\n"


def _numbers(values: list[Any]) -> str:
    if values and isinstance(values[0], list):
        return "; ".join(_numbers(row) for row in values)
    return " ".join("-" if v is None else f"{v:.5g}" if isinstance(v, int | float) else str(v) for v in values)
