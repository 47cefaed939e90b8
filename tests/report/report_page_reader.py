"""A written page, read back with html.parser."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from facenas.report import write_report


class Page(HTMLParser):
    """What the tests ask of a page: tags with their attributes, and text by the tag around it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = [""]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1], data))

    def find(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """Attributes of all `tag`s that have the `wanted` ones (`class_` for class)."""
        items = {key.rstrip("_").replace("_", "-"): value for key, value in wanted.items()}.items()
        return [attrs for name, attrs in self.tags if name == tag and items <= attrs.items()]

    def text(self) -> str:
        """All that a reader sees, on one line."""
        shown = (data for tag, data in self.texts if tag not in ("script", "style"))
        return " ".join(" ".join(shown).split())


def read_page(run: Path) -> Page:
    """Writes the report and reads it back."""
    path = write_report(run)
    assert path == run / "report.html"
    assert not list(run.glob(".report*"))
    return Page(path.read_text(encoding="utf-8"))


def json_scripts(page: Page) -> list[str]:
    """The figures of the page, as JSON."""
    scripts = [data for tag, data in page.texts if tag == "script"]
    return [data for data in scripts if data.startswith("{")]
