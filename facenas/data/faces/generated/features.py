"""Eyes, brows, nose and mouth."""

from __future__ import annotations

import numpy as np

from facenas.data.faces.generated.geometry import Points, curve, mirrored, on_face
from facenas.data.faces.generated.identity import Identity
from facenas.data.faces.generated.nuisance import Expression
from facenas.data.faces.generated.sketch import Sketch, ellipse, mixed, shaded

EYE = 17.6  # half the distance between the mean face's eyes, whose middle is the origin
_LIP = (168.0, 62.0, 66.0)
_SHADOW = (96.0, 40.0, 30.0)


def landmarks(who: Identity, face: Expression) -> Points:
    """(5, 4) eyes, nose tip and mouth corners, left of the picture first."""
    eye, (corner, level) = EYE + who.eye_spacing, _mouth_corner(who, face)
    flat = [(-eye, 0), (eye, 0), (0, _nose_level(who)), (-corner, level), (corner, level)]
    return on_face(flat, (0, 0, 9 * who.nose_tip, 0, 0))


def _nose_level(who: Identity) -> float:
    return 20 + who.nose_length


def _mouth_level(who: Identity) -> float:
    return 40.6 + who.mouth_height


def _mouth_corner(who: Identity, face: Expression) -> tuple[float, float]:
    across = 14.6 * who.mouth_width + 2.2 * face.smile - 1.5 * face.opening
    down = _mouth_level(who) - who.mouth_corners - 2.4 * face.smile + 1.5 * face.opening
    return across, down


def draw_features(sketch: Sketch, who: Identity, face: Expression) -> None:
    """All features of the face, over its skin."""
    _draw_folds(sketch, who, face)
    for sign in (-1, 1):
        _draw_eye(sketch, who, face, sign)
        _draw_brow(sketch, who, face, sign)
    _draw_nose(sketch, who)
    _draw_mouth(sketch, who, face)


def _draw_folds(sketch: Sketch, who: Identity, face: Expression) -> None:
    """Lines from the nose to the mouth, deeper with a smile, and below the eyes."""
    dark = mixed(who.skin, _SHADOW, 0.42)
    corner, level = _mouth_corner(who, face)
    nose, eye = 6.5 * who.nose_width, EYE + who.eye_spacing
    depth = min(1.0, 0.55 * who.folds + 0.35 * max(0.0, face.smile))
    fold = curve([(nose + 3, _nose_level(who)), (corner + 1, level - 10), (corner + 3.5, level)])
    bag = curve([(eye - 7, 6.5), (eye - 1, 8.7), (eye + 6, 7.1)])
    for sign in (-1, 1):
        sketch.line(on_face(fold * (sign, 1)), mixed(who.skin, dark, depth), 0.8)
        sketch.line(on_face(bag * (sign, 1)), mixed(who.skin, dark, 0.6 * who.folds), 0.8)


def _eye_edges(who: Identity, face: Expression, sign: int) -> tuple[Points, Points]:
    """(n, 2) upper and lower edge of an eye, both from the inner corner to the outer."""
    wide, squint = 8.8 * who.eye_width, 1 - 0.18 * max(0.0, face.smile)
    lower = 3.0 * who.eye_height**0.5 * squint
    lid = (1 - face.eyelids) * 5.0 * who.eye_height * squint - face.eyelids * 0.8 * lower
    across = np.array((-1, -0.45, 0.1, 0.62, 1)) * wide
    upper = curve(np.column_stack([across, (0.6, -0.8 * lid, -lid, -0.72 * lid, 0)]))
    under = curve(np.column_stack([across, (0.6, 0.8 * lower, lower, 0.75 * lower, 0)]))
    cos, sin = np.cos(who.eye_tilt), np.sin(who.eye_tilt)
    turn = np.array(((cos, -sin), (sin, cos)))
    place, mirror = (EYE + who.eye_spacing, 0), (sign, 1)
    return (upper @ turn + place) * mirror, (under @ turn + place) * mirror


def _draw_eye(sketch: Sketch, who: Identity, face: Expression, sign: int) -> None:
    """The ball and iris first, then the lids over them: they cut the iris off."""
    upper, under = _eye_edges(who, face, sign)
    middle = sign * (EYE + who.eye_spacing)
    sketch.fill(_between(upper, under), (226, 222, 218))
    iris, radius = np.array((middle + 2.6 * face.gaze, -0.5)), 4.6 * who.iris_size
    sketch.fill(on_face(ellipse(iris, radius)), shaded(who.iris, 0.62))
    sketch.fill(on_face(ellipse(iris, 0.78 * radius)), shaded(who.iris, 1.15))
    sketch.fill(on_face(ellipse(iris, 0.44 * radius)), (14, 12, 12))
    sketch.line(on_face([iris - 1.4]), (250, 250, 250), 1.7)
    lid = mixed(who.skin, _SHADOW, 0.16 + 0.08 * who.eye_depth)
    sketch.fill(_between(upper, _arched(upper, middle, -7)), lid)
    sketch.fill(_between(under, _arched(under, middle, 5)), who.skin)
    if who.lid_crease > 0:
        crease = _arched(upper[2:-1], middle, -1.2 - who.lid_crease)
        sketch.line(on_face(crease), mixed(who.skin, _SHADOW, 0.55), 0.9)
    sketch.line(on_face(under[3:]), mixed(who.skin, _SHADOW, 0.45), 0.8)
    sketch.line(on_face(upper), (38, 24, 20), 1.1 * who.lashes)


def _between(one: Points, other: Points, lift: float = 0.0) -> Points:
    """(n, 4) the area of the face between two lines that run the same way."""
    return on_face(np.concatenate([one, other[::-1]]), lift)


def _arched(edge: Points, middle: float, rise: float) -> Points:
    """The eye's edge moved by `rise` pixels in its middle, hardly at its ends."""
    share = np.minimum(1.15 - ((edge[:, 0] - middle) / (np.ptp(edge[:, 0]) / 2)) ** 2, 1)
    moved: Points = edge + np.outer(np.maximum(share, 0), (0, rise))
    return moved


def _draw_brow(sketch: Sketch, who: Identity, face: Expression, sign: int) -> None:
    half, rise = 10.5 * who.brow_length, 10.5 * who.brow_length * np.sin(who.brow_tilt)
    arch = who.brow_arch + 0.8 * face.brows
    down = rise, 0.4 * rise - 0.5 * arch, -0.4 * rise - arch, 1 - rise
    place = EYE + who.eye_spacing + 0.5, -11.2 - who.brow_height - 1.9 * face.brows
    spine = np.column_stack([np.array((-1, -0.4, 0.35, 1)) * half, down]) + np.array(place)
    width = np.outer((0.8, 1.0, 0.85, 0.15), (0, 1.7 * who.brow_thickness))
    colour = mixed(who.skin, shaded(who.hair, 0.75), who.brow_darkness)
    upper, lower = curve(spine - width), curve(spine + width)
    sketch.fill(_between(upper * (sign, 1), lower * (sign, 1), 2), colour)


def _draw_nose(sketch: Sketch, who: Identity) -> None:
    """The shadow below the tip, the wings and the nostrils; the bridge is a matter of light."""
    wide, tip, lift = 6.9 * who.nose_width, _nose_level(who), 5 * who.nose_tip
    half = [(0, tip + 1.5), (0.62 * wide, tip + 1.5), (wide, tip + 1.5)]
    half += [(0.6 * wide, tip + 4), (0, tip + 5)]
    base = curve(mirrored(half), closed=True)
    sketch.tint(on_face(base, lift), mixed(who.skin, _SHADOW, 0.3), 0.7, 1.1)
    wing = [
        (wide - 1.6, tip - 5),
        (wide + 0.4, tip - 1.5),
        (wide, tip + 2.2),
        (wide - 2.2, tip + 3),
    ]
    nostril = ellipse((0.52 * wide, tip + 2.4), (0.28 * wide, 1.2), 0.25)
    for sign in (-1, 1):
        sketch.line(on_face(curve(wing) * (sign, 1), 3), mixed(who.skin, _SHADOW, 0.42), 1.0)
        hole = on_face(nostril * (sign, 1), lift)
        sketch.fill(hole, mixed(who.skin, (50, 18, 14), 0.65))


def _draw_mouth(sketch: Sketch, who: Identity, face: Expression) -> None:
    corner = _mouth_corner(who, face)
    wide, middle = corner[0], _mouth_level(who) + 0.7 * face.smile
    high, low = middle - 3.6 * who.upper_lip, middle + 8.5 * face.opening
    thick = 4.6 * who.lower_lip
    upper = _lip(corner, (0.4 * wide, middle - 0.2), (0, middle + 0.4))
    lower = _lip(corner, (0.5 * wide, 0.2 * middle + 0.8 * low), (0, low + 0.4))
    bow = (0.45 * wide, 0.3 * middle + 0.7 * high), (0.16 * wide, high - 0.4)
    above = _lip(corner, *bow, (0, high + who.cupid_bow))
    below = _lip(corner, (0.5 * wide, low + 0.78 * thick), (0, low + thick))
    if face.opening:
        sketch.fill(_between(upper, lower), (58, 16, 18))
        sketch.fill(_between(upper, 0.55 * upper + 0.45 * lower), (232, 228, 220))
    colour = mixed(mixed(who.skin, _LIP, 0.35), _LIP, 0.75 * who.lip_redness)
    sketch.fill(_between(above, upper, 2), shaded(colour, 0.88))
    sketch.fill(_between(lower, below, 2), colour)
    sketch.line(on_face(upper, 2), mixed(colour, (50, 14, 16), 0.75), 0.9)


def _lip(*half: tuple[float, float]) -> Points:
    """(n, 2) a line across the mouth, by its points from the right corner to the middle."""
    right = np.array(half)
    return curve(np.concatenate([right * (-1, 1), right[-2::-1]]))
