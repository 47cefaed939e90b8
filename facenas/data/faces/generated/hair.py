"""Hair of the head, and beards."""

from __future__ import annotations

import numpy as np

from facenas.data.faces.generated.geometry import Points, curve, mirrored, on_face, on_outline
from facenas.data.faces.generated.head import SIDE, chin_level, outline
from facenas.data.faces.generated.identity import Identity
from facenas.data.faces.generated.nuisance import Expression
from facenas.data.faces.generated.sketch import Sketch, mixed, shaded

_TOP = 70.0  # height of the hair above the eyes
_SIDEBURN = 14.0  # lowest end of hair in front of the ears


def draw_back_hair(sketch: Sketch, who: Identity) -> None:
    """The hair behind the head, and what hangs down there."""
    if who.bald:
        return
    sketch.fill(_rim(who), shaded(who.hair, 0.85))
    if who.hair_length < _SIDEBURN:
        return
    wide, low = SIDE * who.head_width + 5 + who.hair_volume, who.hair_length
    half = [(0.0, -66.0), (0.8 * wide, -56), (wide, -20), (wide + 1, 15)]
    half += [(wide + 2, 0.6 * low + 15), (wide - 3, low + 8), (0, low + 8)]
    sketch.fill(on_outline(curve(mirrored(half), closed=True), -20), shaded(who.hair, 0.62))


def draw_hair(sketch: Sketch, who: Identity) -> None:
    """Hair above the forehead and beside the face, with its shadow on the skin."""
    if who.bald:
        return
    rim, edge = _rim(who), _hairline(who)
    sketch.tint(edge + np.array((0, 2, 0, 0)), shaded(who.skin, 0.55), 0.3, 1.5)
    sketch.fill(np.concatenate([rim, edge[::-1]]), who.hair)
    _draw_strands(sketch, who, rim, edge)
    if who.hair_length > _SIDEBURN:
        _draw_locks(sketch, who)


def _rim(who: Identity) -> Points:
    """(n, 4) the hair's outer edge from the left of the picture to the right."""
    side = SIDE * who.head_width
    wide = side + 1 + 0.5 * who.hair_volume
    end = side + 1.2, min(who.hair_length, _SIDEBURN)
    right = [(0, -_TOP), (0.8 * wide, -62), (wide, -36), end]
    left = [(-x, y) for x, y in right[:0:-1]]
    return on_outline(curve(left + right, steps=7), -6)


def _hairline(who: Identity) -> Points:
    """(n, 4) the hair's lower edge from the left of the picture to the right, wavy when curly."""
    across = np.array((-0.95, -0.88, -0.55, -0.2, 0.2, 0.55, 0.88, 0.95))
    back = np.array((0, 0.4, 1, 0.2, 0.2, 1, 0.4, 0)) * who.temples
    peak = np.array((0, 0, 0, 1, 1, 0, 0, 0)) * who.widows_peak
    fall = who.sweep * np.clip(1 - np.abs(across + 0.5 * who.parting), 0, 1)
    level = who.hairline - back + peak + fall + np.array((18, 7, 0, 0, 0, 0, 7, 18))
    inner = curve(np.column_stack([across * SIDE * who.head_width, level]))
    share = np.linspace(0, np.pi, len(inner))
    inner[:, 1] += 2.2 * who.curl**2 * np.sin(share) * np.sin(24 * share)
    # The ends lie on the outline: beside the face the hair runs out in a point.
    end = SIDE * who.head_width + 0.5, min(who.hair_length, _SIDEBURN)
    ends = on_outline([(-end[0], end[1]), end])
    return np.concatenate([ends[:1], on_face(inner, 1), ends[1:]])


def _draw_strands(sketch: Sketch, who: Identity, rim: Points, edge: Points) -> None:
    """Lighter and darker lines from the rim to the hairline that lean to the parting's side."""
    share = np.linspace(0.2, 0.8, 12)
    lean = np.clip(share + 0.08 * who.parting, 0.1, 0.9)
    start = rim[np.rint(share * (len(rim) - 1)).astype(int)]
    end = edge[np.rint(lean * (len(edge) - 1)).astype(int)]
    middle = 0.55 * start + 0.45 * end + np.array((3 * who.parting, 0, 0, 0))
    control = np.stack([start, middle, 0.1 * middle + 0.9 * end])
    strands = curve(control.reshape(3, -1)).reshape(-1, len(share), 4)
    for number in range(len(share)):
        sketch.line(strands[:, number], shaded(who.hair, 1.22 if number % 2 else 0.8), 0.9)


def _draw_locks(sketch: Sketch, who: Identity) -> None:
    """Long hair beside the face, in front of the ears."""
    side, low = SIDE * who.head_width, who.hair_length
    inner = [(0.8, -34), (0.9, -12), (0.96, 14), (0.9, 0.6 * low + 8)]
    lock = np.array([*inner, (1, low), (1.22, low), (1.2, 10), (1.1, -34)])
    for sign in (-1, 1):
        points = curve(lock * (sign * side, 1), closed=True)
        sketch.fill(on_outline(points, -2), shaded(who.hair, 0.92))


def draw_beard(sketch: Sketch, who: Identity, face: Expression) -> None:
    """Soft areas of the hair's colour around the mouth and along the jaw."""
    colour = mixed(shaded(who.hair, 0.8), who.skin, 0.1)
    wide, mouth = 14.6 * who.mouth_width + 2.2 * face.smile, 40.6 + who.mouth_height
    if who.cheek_beard:
        rim = outline(who, face)
        inner = [(-0.86 * SIDE * who.head_width, 14), (-24, 28), (-wide - 2, mouth - 3)]
        inner += [(0, mouth - 5), *((-x, y) for x, y in reversed(inner))]
        area = np.concatenate([rim[rim[:, 1] > 2], on_face(curve(inner))])
        sketch.tint(area, colour, who.cheek_beard, 1.8)
    if who.chin_beard:
        low = chin_level(who, face) + 3
        half = [(0, mouth + 4), (0.6 * wide, mouth + 5), (wide + 1, mouth), (wide, mouth + 9)]
        half += [(0.8 * wide, low - 4), (0, low)]
        sketch.tint(on_face(curve(mirrored(half), closed=True)), colour, who.chin_beard, 1.2)
    if who.moustache:
        half = [(0, mouth - 8), (7, mouth - 9), (wide + 2, mouth - 1), (wide + 1, mouth + 3)]
        half += [(7, mouth - 4), (0, mouth - 4)]
        sketch.tint(on_face(curve(mirrored(half), closed=True)), colour, who.moustache, 0.8)
