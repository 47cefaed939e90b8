"""Glasses, and what hides a part of the face: a hand, a scarf, a hat."""

from __future__ import annotations

import numpy as np

from facenas.data.faces.generated.features import EYE
from facenas.data.faces.generated.geometry import curve, mirrored, on_face, on_outline
from facenas.data.faces.generated.head import SIDE
from facenas.data.faces.generated.identity import Colour, Identity
from facenas.data.faces.generated.nuisance import Nuisance
from facenas.data.faces.generated.sketch import Sketch, shaded


def draw_covers(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """What this image has of glasses and covers."""
    if now.glasses:
        _draw_glasses(sketch, who, now)
    if now.cover == "hand":
        _draw_hand(sketch, now)
    if now.cover == "scarf":
        _draw_scarf(sketch, now)
    if now.cover == "hat":
        _draw_hat(sketch, who, now)


def _draw_glasses(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Rims between round and rectangular, a bridge, temples; clear or dark glass."""
    middle, roundness = EYE + 0.6 * who.eye_spacing, 0.5 * (1 + now.where)
    wide, high = 13 - 1.5 * roundness, 8 + 3 * roundness
    angle = np.linspace(0, 2 * np.pi, 24)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    bent = np.sign(circle) * np.abs(circle) ** (0.55 + 0.45 * roundness)  # a superellipse
    ring = bent * (wide, high) + np.array((middle, 1))
    colour, width = shaded(now.glasses_colour, 0.55), 1.2 + 1.2 * abs(now.where)
    glass: tuple[Colour, float] = ((235, 240, 245), 0.12)
    if now.glasses == "dark":
        glass = ((26, 24, 28), 0.9)
    for sign in (-1, 1):
        rim = on_face(ring * (sign, 1), 8)
        sketch.tint(rim, *glass, 0.3)
        sketch.line(rim, colour, width)
        hinge = on_face([(sign * (middle + wide), -2)], 8)
        ear = on_outline([(sign * (SIDE + 1) * who.head_width, -3)])
        sketch.line(np.concatenate([hinge, ear]), colour, width)
    bridge = [(wide - middle, 0), (0, -2.5), (middle - wide, 0)]
    sketch.line(on_face(curve(bridge), 9), colour, width)


def _draw_hand(sketch: Sketch, now: Nuisance) -> None:
    """Four fingers that come from a lower corner and end on the cheek."""
    tone = now.cover_colour[0]  # any skin, from light to dark
    skin = 120 + 0.45 * tone, 84 + 0.42 * tone, 62 + 0.4 * tone
    sign = 1 if now.where > 0 else -1
    for finger in range(4):
        tip = np.array((18 + 5.5 * finger, 22 + 3 * abs(finger - 1) - 14 * abs(now.where)))
        root = np.array((26 + 9 * finger, 80))
        knuckle = 0.5 * (tip + root) + np.array((2, 0))
        line = on_outline(curve([tip, knuckle, root]) * (sign, 1), 40)
        sketch.line(line, shaded(skin, 0.6), 10)
        sketch.line(line, skin, 8.6)
        sketch.line(line[:1] - np.array((0, 1, 0, 0)), shaded(skin, 1.12), 4.5)


def _draw_scarf(sketch: Sketch, now: Nuisance) -> None:
    """Cloth over chin and mouth, with folds."""
    top, colour = 40 - 11 * now.where, now.cover_colour
    half = [(0, top), (20, top - 1), (38, top - 8), (50, top - 6), (56, 90), (0, 95)]
    sketch.fill(on_outline(curve(mirrored(half), closed=True), 22), colour)
    fold = curve([(-44, top - 9), (-18, top), (4, top + 2), (44, top - 7)])
    for down in (8, 17, 27):
        line = on_outline(fold + np.array((0, down)), 22)
        sketch.line(line, shaded(colour, 0.72), 1.6)


def _draw_hat(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """A cap down to the forehead, with a darker band."""
    low, side = -27 + 5 * now.where, (SIDE + 5) * who.head_width
    edge = curve([(x * side, low + 6 * x**2) for x in (-1, -0.5, 0, 0.5, 1)])
    crown = [(side + 2, -40), (side - 4, -95), (4 - side, -95), (-side - 2, -40)]
    cap = np.concatenate([on_outline(edge, 26), on_outline(crown)])
    sketch.fill(cap, now.cover_colour)
    band = np.concatenate([edge, edge[::-1] - np.array((0, 6))])
    sketch.fill(on_outline(band, 26), shaded(now.cover_colour, 0.7))
