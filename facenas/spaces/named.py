"""Face networks of the literature by name, and the same at another cost: what a found one is compared with."""

from __future__ import annotations

from facenas.errors import UserError
from facenas.spaces import edgeface, ghostfacenet, ir, mobilefacenet
from facenas.spaces.base import FACE_SIZE
from facenas.spaces.ir import IRArchitecture
from facenas.spaces.scaled import ScaledArchitecture

NamedArchitecture = IRArchitecture | ScaledArchitecture

_FAMILIES = (ir, mobilefacenet, ghostfacenet, edgeface)

NAMED: dict[str, NamedArchitecture] = {name: a for family in _FAMILIES for name, a in family.NAMED.items()}
REPRODUCES = {name: text for family in _FAMILIES for name, text in family.REPRODUCES.items()}


def named(name: str) -> NamedArchitecture:
    """The network of that name; raises UserError when there is none."""
    if name not in NAMED:
        raise UserError(f"no network is called {name}; there are {', '.join(NAMED)}")
    return NAMED[name]


def at_macs(arch: NamedArchitecture, macs: float) -> NamedArchitecture:
    """The network of another width whose multiply-accumulates for one image come nearest to `macs`.

    Widths from a sixteenth of `arch`'s to four times it are looked at. Raises UserError beyond those.
    """
    found = [arch.scaled(width=step / 64) for step in range(4, 257)]
    least, most = (one.count_macs(FACE_SIZE) for one in (found[0], found[-1]))
    if not least <= macs <= most:
        raise UserError(f"macs: {macs:,.0f} is not within reach of its width: {least:,} to {most:,} are")
    return min(found, key=lambda one: abs(one.count_macs(FACE_SIZE) - macs))
