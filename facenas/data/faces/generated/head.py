"""The head without its features: outline, ears, neck, and marks on the skin."""

from __future__ import annotations

import numpy as np

from facenas.data.faces.generated.geometry import Points, curve, mirrored, on_face, on_outline
from facenas.data.faces.generated.identity import Colour, Identity
from facenas.data.faces.generated.nuisance import Expression
from facenas.data.faces.generated.sketch import Sketch, ellipse, mixed, shaded

SIDE = 40.5  # half the width of the mean head


def chin_level(who: Identity, face: Expression) -> float:
    """How far the chin lies below the eyes, in pixels."""
    return 59 + who.chin + 5.5 * face.opening


def outline(who: Identity, face: Expression) -> Points:
    """(n, 4) the head's outline, from the top by the right of the picture to the chin and back.

    The chin lies in front of the head's centre and so moves when the head turns.
    """
    side, chin = SIDE * who.head_width, chin_level(who, face)
    jaw = 38 + who.jaw_height + 2.5 * face.opening
    half = [
        (0, -64),
        (0.62 * side * who.forehead, -58),
        (0.93 * side * who.forehead, -36),
        (0.985 * side, -10),
        (side, 12),
        (0.5 * side * (1 + 0.84 * who.jaw_width), jaw - 9),
        (0.79 * side * who.jaw_width, jaw + 3),
        (0.48 * side * who.jaw_width + 4 * who.chin_width, jaw + 13),
        (11 * who.chin_width, chin - 1.2),
        (0, chin),
    ]
    points = curve(mirrored(half), closed=True)
    return on_outline(points, 27 * np.clip((points[:, 1] - 8) / 50, 0, 1) ** 1.3)


def draw_behind(sketch: Sketch, who: Identity, clothes: Colour) -> None:
    """Neck, clothes and ears."""
    side = SIDE * who.head_width
    half = [(0.0, 20.0), (0.7 * side, 20), (0.66 * side, 75), (1.1 * side, 92), (0, 100)]
    sketch.fill(on_outline(mirrored(half), -10), shaded(who.skin, 0.66))
    collar = [(-90, 84), (-26, 75), (0, 84), (26, 75), (90, 84), (90, 140), (-90, 140)]
    sketch.fill(on_outline(collar, -10), clothes)
    radii = np.array((5.4 + 0.5 * who.ear_angle, 11)) * who.ear_size
    for sign in (-1, 1):
        centre = sign * (side + 1 + who.ear_angle), 7
        ear, inner = (ellipse(centre, share * radii, 0.18 * sign) for share in (1, 0.55))
        sketch.fill(on_outline(ear, -12), mixed(who.skin, (190, 90, 80), 0.14))
        sketch.fill(on_outline(inner, -12), shaded(who.skin, 0.7))


def draw_skin(sketch: Sketch, who: Identity, face: Expression) -> None:
    """The face itself, still without features."""
    sketch.fill(outline(who, face), who.skin)


def draw_marks(sketch: Sketch, who: Identity) -> None:
    """Freckles, a scar and moles."""
    for freckle in on_face(who.freckles):
        sketch.line(freckle[None], mixed(who.skin, (120, 60, 30), 0.42), 0.9)
    if len(who.scar):
        sketch.line(on_face(curve(who.scar)), mixed(who.skin, (225, 150, 145), 0.7), 1.5)
    for mole, radius in zip(on_face(who.moles[:, :2]), who.moles[:, 2], strict=True):
        sketch.line(mole[None], mixed(who.skin, (45, 22, 16), 0.78), 2 * radius)
