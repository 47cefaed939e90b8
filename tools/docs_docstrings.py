"""For mkdocstrings: what our docstrings have that Markdown has not.

Examples (`>>> ...`) become code blocks: Markdown would see quotations. Settings get a table of their keys, with
those that they inherit.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import griffe

# From the first prompt to the next empty line.
_DOCTEST = re.compile(r"^( *)(>>> .*(?:\n(?! *$).+)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Changes docstrings before they are rendered."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Once for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = _DOCTEST.sub(r"\1```pycon\n\1\2\n\1```", obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Settings are classes within the class that they are the settings of, or recipes."""
        if cls.docstring and (cls.name == "Settings" or cls.name.endswith(("Recipe", "Config"))):
            cls.docstring.value += "\n\n" + _table(cls.path)


def _table(path: str) -> str:
    """The keys of the settings at `path`, `package.module.Class.Settings`."""
    from pydantic_core import PydanticUndefined

    module, names = path, []
    while True:
        module, _, name = module.rpartition(".")
        names.insert(0, name)
        if module.islower():
            break
    found: Any = importlib.import_module(module)
    for name in names:
        found = getattr(found, name)
    rows = []
    for key, field in getattr(found, "model_fields", {}).items():
        kind = re.sub(r"\b[a-z_]+\.(?=\w)|<class '|'>", "", str(field.annotation)).replace("|", "\\|")
        default = field.get_default(call_default_factory=True)
        told = "needed" if default is PydanticUndefined else f"`{default!r}`"
        rows.append(f"| `{key}` | {kind} | {told} |")
    return "\n".join(["| key | type | default |", "|---|---|---|", *rows]) if rows else ""
