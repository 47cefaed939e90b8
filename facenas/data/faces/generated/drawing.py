"""The parts of a face as shapes: head, eyes, brows, nose and mouth, hair and beard, glasses and covers."""

from __future__ import annotations

import numpy as np

from facenas.data.faces.generated.factors import Identity, Nuisance, mixed, shaded
from facenas.data.faces.generated.sketch import (
    Points,
    Sketch,
    blob,
    curve,
    ellipse,
    mirrored,
    on_face,
    on_outline,
)

SIDE = 40.5  # half the width of the mean head
EYE = 17.6  # half the distance between the mean face's eyes, whose middle is the origin
_LIP = (168.0, 62.0, 66.0)
_SHADOW = (96.0, 40.0, 30.0)
_TOP = 70.0  # height of the hair above the eyes
_SIDEBURN = 14.0  # lowest end of hair in front of the ears
_Line = list[tuple[float, float]]  # x, y
_BOTH = (-1, 1)  # sides, left of the picture first


def nose_level(who: Identity) -> float:
    """How far the tip of the nose lies below the eyes, in pixels, as the other levels."""
    return 20 + who.nose_length


def mouth_level(who: Identity) -> float:
    """Of the mouth's middle."""
    return 40.6 + who.mouth_height


def _mouth_corner(who: Identity, now: Nuisance) -> tuple[float, float]:
    across = 14.6 * who.mouth_width + 2.2 * now.smile - 1.5 * now.opening
    down = mouth_level(who) - who.mouth_corners - 2.4 * now.smile + 1.5 * now.opening
    return across, down


def _chin_level(who: Identity, now: Nuisance) -> float:
    return 59 + who.chin + 5.5 * now.opening


def landmarks(who: Identity, now: Nuisance) -> Points:
    """(5, 4) eyes, nose tip and mouth corners, left of the picture first."""
    eye, (corner, level) = EYE + who.eye_spacing, _mouth_corner(who, now)
    flat = [(-eye, 0), (eye, 0), (0, nose_level(who)), (-corner, level), (corner, level)]
    return on_face(flat, (0, 0, 9 * who.nose_tip, 0, 0))


def _outline(who: Identity, now: Nuisance) -> Points:
    """(n, 4) the head's outline, from the top by the right of the picture to the chin and back.

    The chin lies in front of the head's center and so moves when the head turns.
    """
    side, chin = SIDE * who.head_width, _chin_level(who, now)
    jaw = 38 + who.jaw_height + 2.5 * now.opening
    half: _Line = [(0, -64), (0.62 * side * who.forehead, -58), (0.93 * side * who.forehead, -36)]
    half += [(0.985 * side, -10), (side, 12), (0.5 * side * (1 + 0.84 * who.jaw_width), jaw - 9)]
    half += [(0.79 * side * who.jaw_width, jaw + 3)]
    half += [(0.48 * side * who.jaw_width + 4 * who.chin_width, jaw + 13)]
    half += [(11 * who.chin_width, chin - 1.2), (0, chin)]
    points = blob(half)
    return on_outline(points, 27 * np.clip((points[:, 1] - 8) / 50, 0, 1) ** 1.3)


def _draw_behind(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Neck, clothes and ears."""
    side = SIDE * who.head_width
    half: _Line = [(0.0, 20.0), (0.7 * side, 20), (0.66 * side, 75), (1.1 * side, 92), (0, 100)]
    sketch.fill(on_outline(mirrored(half), -10), shaded(who.skin, 0.66))
    collar = [(-90, 84), (-26, 75), (0, 84), (26, 75), (90, 84), (90, 140), (-90, 140)]
    sketch.fill(on_outline(collar, -10), now.clothes)
    radii = np.array((5.4 + 0.5 * who.ear_angle, 11)) * who.ear_size
    for sign in _BOTH:
        center = sign * (side + 1 + who.ear_angle), 7
        ear, inner = (ellipse(center, share * radii, 0.18 * sign) for share in (1, 0.55))
        sketch.fill(on_outline(ear, -12), mixed(who.skin, (190, 90, 80), 0.14))
        sketch.fill(on_outline(inner, -12), shaded(who.skin, 0.7))


def _draw_marks(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Freckles, a scar and moles."""
    for freckle in on_face(who.freckles):
        sketch.line(freckle[None], mixed(who.skin, (120, 60, 30), 0.42), 0.9)
    if len(who.scar):
        sketch.line(on_face(curve(who.scar)), mixed(who.skin, (225, 150, 145), 0.7), 1.5)
    for mole, radius in zip(on_face(who.moles[:, :2]), who.moles[:, 2], strict=True):
        sketch.line(mole[None], mixed(who.skin, (45, 22, 16), 0.78), 2 * radius)


def _draw_folds(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Lines from the nose to the mouth, deeper with a smile, and below the eyes."""
    dark = mixed(who.skin, _SHADOW, 0.42)
    corner, level = _mouth_corner(who, now)
    nose, eye = 6.5 * who.nose_width, EYE + who.eye_spacing
    depth = min(1.0, 0.55 * who.folds + 0.35 * max(0.0, now.smile))
    fold = curve([(nose + 3, nose_level(who)), (corner + 1, level - 10), (corner + 3.5, level)])
    bag = curve([(eye - 7, 6.5), (eye - 1, 8.7), (eye + 6, 7.1)])
    for sign in _BOTH:
        sketch.line(on_face(fold * (sign, 1)), mixed(who.skin, dark, depth), 0.8)
        sketch.line(on_face(bag * (sign, 1)), mixed(who.skin, dark, 0.6 * who.folds), 0.8)


def _draw_eyes(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Each eye and its brow: ball and iris first, then the lids over them, which cut the iris off."""
    for sign in _BOTH:
        upper, under = _eye_edges(who, now, sign)
        middle = sign * (EYE + who.eye_spacing)
        sketch.fill(_between(upper, under), (226, 222, 218))
        iris, radius = np.array((middle + 2.6 * now.gaze, -0.5)), 4.6 * who.iris_size
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
        _draw_brow(sketch, who, now, sign)


def _eye_edges(who: Identity, now: Nuisance, sign: int) -> tuple[Points, Points]:
    """(n, 2) upper and lower edge of an eye, both from the inner corner to the outer."""
    squint = 1 - 0.18 * max(0.0, now.smile)
    lower = 3.0 * who.eye_height**0.5 * squint
    lid = (1 - now.eyelids) * 5.0 * who.eye_height * squint - now.eyelids * 0.8 * lower
    across = np.array((-1, -0.45, 0.1, 0.62, 1)) * (8.8 * who.eye_width)
    upper = curve(np.column_stack([across, (0.6, -0.8 * lid, -lid, -0.72 * lid, 0)]))
    under = curve(np.column_stack([across, (0.6, 0.8 * lower, lower, 0.75 * lower, 0)]))
    cos, sin = np.cos(who.eye_tilt), np.sin(who.eye_tilt)
    turn = np.array(((cos, -sin), (sin, cos)))
    place, mirror = (EYE + who.eye_spacing, 0), (sign, 1)
    return (upper @ turn + place) * mirror, (under @ turn + place) * mirror


def _between(one: Points, other: Points, lift: float = 0.0) -> Points:
    """(n, 4) the area of the face between two lines that run the same way."""
    return on_face(np.concatenate([one, other[::-1]]), lift)


def _arched(edge: Points, middle: float, rise: float) -> Points:
    """The eye's edge moved by `rise` pixels in its middle, hardly at its ends."""
    share = np.minimum(1.15 - ((edge[:, 0] - middle) / (np.ptp(edge[:, 0]) / 2)) ** 2, 1)
    moved: Points = edge + np.outer(np.maximum(share, 0), (0, rise))
    return moved


def _draw_brow(sketch: Sketch, who: Identity, now: Nuisance, sign: int) -> None:
    half, rise = 10.5 * who.brow_length, 10.5 * who.brow_length * np.sin(who.brow_tilt)
    arch = who.brow_arch + 0.8 * now.brows
    down = rise, 0.4 * rise - 0.5 * arch, -0.4 * rise - arch, 1 - rise
    place = EYE + who.eye_spacing + 0.5, -11.2 - who.brow_height - 1.9 * now.brows
    spine = np.column_stack([np.array((-1, -0.4, 0.35, 1)) * half, down]) + np.array(place)
    width = np.outer((0.8, 1.0, 0.85, 0.15), (0, 1.7 * who.brow_thickness))
    color = mixed(who.skin, shaded(who.hair, 0.75), who.brow_darkness)
    upper, lower = curve(spine - width), curve(spine + width)
    sketch.fill(_between(upper * (sign, 1), lower * (sign, 1), 2), color)


def _draw_nose(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """The shadow below the tip, the wings and the nostrils; the bridge is a matter of light."""
    wide, tip, lift = 6.9 * who.nose_width, nose_level(who), 5 * who.nose_tip
    half: _Line = [(0, tip + 1.5), (0.62 * wide, tip + 1.5), (wide, tip + 1.5)]
    half += [(0.6 * wide, tip + 4), (0, tip + 5)]
    sketch.tint(on_face(blob(half), lift), mixed(who.skin, _SHADOW, 0.3), 0.7, 1.1)
    wing = np.array(((-1.6, -5), (0.4, -1.5), (0, 2.2), (-2.2, 3))) + np.array((wide, tip))
    nostril = ellipse((0.52 * wide, tip + 2.4), (0.28 * wide, 1.2), 0.25)
    for sign in _BOTH:
        sketch.line(on_face(curve(wing) * (sign, 1), 3), mixed(who.skin, _SHADOW, 0.42), 1.0)
        hole = on_face(nostril * (sign, 1), lift)
        sketch.fill(hole, mixed(who.skin, (50, 18, 14), 0.65))


def _draw_mouth(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    corner = _mouth_corner(who, now)
    wide, middle = corner[0], mouth_level(who) + 0.7 * now.smile
    high, low = middle - 3.6 * who.upper_lip, middle + 8.5 * now.opening
    thick = 4.6 * who.lower_lip
    upper = _lip(corner, (0.4 * wide, middle - 0.2), (0, middle + 0.4))
    lower = _lip(corner, (0.5 * wide, 0.2 * middle + 0.8 * low), (0, low + 0.4))
    bow = (0.45 * wide, 0.3 * middle + 0.7 * high), (0.16 * wide, high - 0.4)
    above = _lip(corner, *bow, (0, high + who.cupid_bow))
    below = _lip(corner, (0.5 * wide, low + 0.78 * thick), (0, low + thick))
    if now.opening:
        sketch.fill(_between(upper, lower), (58, 16, 18))
        sketch.fill(_between(upper, 0.55 * upper + 0.45 * lower), (232, 228, 220))
    color = mixed(mixed(who.skin, _LIP, 0.35), _LIP, 0.75 * who.lip_redness)
    sketch.fill(_between(above, upper, 2), shaded(color, 0.88))
    sketch.fill(_between(lower, below, 2), color)
    sketch.line(on_face(upper, 2), mixed(color, (50, 14, 16), 0.75), 0.9)


def _lip(*half: tuple[float, float]) -> Points:
    """(n, 2) a line across the mouth, by its points from the right corner to the middle."""
    right = np.array(half)
    return curve(np.concatenate([right * (-1, 1), right[-2::-1]]))


def _draw_back_hair(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """The hair behind the head, and what hangs down there."""
    if who.bald:
        return
    sketch.fill(_rim(who), shaded(who.hair, 0.85))
    if who.hair_length < _SIDEBURN:
        return
    wide, low = SIDE * who.head_width + 5 + who.hair_volume, who.hair_length
    half: _Line = [(0.0, -66.0), (0.8 * wide, -56), (wide, -20), (wide + 1, 15)]
    half += [(wide + 2, 0.6 * low + 15), (wide - 3, low + 8), (0, low + 8)]
    sketch.fill(on_outline(blob(half), -20), shaded(who.hair, 0.62))


def _draw_hair(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Hair above the forehead with its shadow on the skin; long hair falls in front of the ears."""
    if who.bald:
        return
    rim, edge = _rim(who), _hairline(who)
    sketch.tint(edge + np.array((0, 2, 0, 0)), shaded(who.skin, 0.55), 0.3, 1.5)
    sketch.fill(np.concatenate([rim, edge[::-1]]), who.hair)
    _draw_strands(sketch, who, rim, edge)
    if who.hair_length <= _SIDEBURN:
        return
    side, low = SIDE * who.head_width, who.hair_length
    inner: _Line = [(0.8, -34), (0.9, -12), (0.96, 14), (0.9, 0.6 * low + 8)]
    lock = np.array([*inner, (1, low), (1.22, low), (1.2, 10), (1.1, -34)])
    for sign in _BOTH:
        points = curve(lock * (sign * side, 1), closed=True)
        sketch.fill(on_outline(points, -2), shaded(who.hair, 0.92))


def _rim(who: Identity) -> Points:
    """(n, 4) the hair's outer edge from the left of the picture to the right."""
    side = SIDE * who.head_width
    wide = side + 1 + 0.5 * who.hair_volume
    right: _Line = [(0, -_TOP), (0.8 * wide, -62), (wide, -36)]
    right += [(side + 1.2, min(who.hair_length, _SIDEBURN))]
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


def _draw_skin(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """The bare face, with soft areas of the hair's color around the mouth and along the jaw."""
    rim = _outline(who, now)
    sketch.fill(rim, who.skin)
    color = mixed(shaded(who.hair, 0.8), who.skin, 0.1)
    wide, mouth = 14.6 * who.mouth_width + 2.2 * now.smile, mouth_level(who)
    if who.cheek_beard:
        inner: _Line = [(-0.86 * SIDE * who.head_width, 14), (-24, 28), (-wide - 2, mouth - 3)]
        inner += [(0, mouth - 5), *((-x, y) for x, y in reversed(inner))]
        area = np.concatenate([rim[rim[:, 1] > 2], on_face(curve(inner))])
        sketch.tint(area, color, who.cheek_beard, 1.8)
    if who.chin_beard:
        low = _chin_level(who, now) + 3
        half: _Line = [
            (0, mouth + 4),
            (0.6 * wide, mouth + 5),
            (wide + 1, mouth),
            (wide, mouth + 9),
        ]
        half += [(0.8 * wide, low - 4), (0, low)]
        sketch.tint(on_face(blob(half)), color, who.chin_beard, 1.2)
    if who.moustache:
        half = [(0, mouth - 8), (7, mouth - 9), (wide + 2, mouth - 1), (wide + 1, mouth + 3)]
        half += [(7, mouth - 4), (0, mouth - 4)]
        sketch.tint(on_face(blob(half)), color, who.moustache, 0.8)


def _draw_glasses(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Rims between round and rectangular, a bridge, temples; clear or dark glass."""
    if not now.glasses:
        return
    middle, roundness = EYE + 0.6 * who.eye_spacing, 0.5 * (1 + now.where)
    wide, high = 13 - 1.5 * roundness, 8 + 3 * roundness
    angle = np.linspace(0, 2 * np.pi, 24)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    bent = np.sign(circle) * np.abs(circle) ** (0.55 + 0.45 * roundness)  # a superellipse
    ring = bent * (wide, high) + np.array((middle, 1))
    color, width = shaded(now.glasses_color, 0.55), 1.2 + 1.2 * abs(now.where)
    glass, opacity = ((26, 24, 28), 0.9) if now.glasses == "dark" else ((235, 240, 245), 0.12)
    for sign in _BOTH:
        rim = on_face(ring * (sign, 1), 8)
        sketch.tint(rim, glass, opacity, 0.3)
        sketch.line(rim, color, width)
        hinge = on_face([(sign * (middle + wide), -2)], 8)
        ear = on_outline([(sign * (SIDE + 1) * who.head_width, -3)])
        sketch.line(np.concatenate([hinge, ear]), color, width)
    bridge = [(wide - middle, 0), (0, -2.5), (middle - wide, 0)]
    sketch.line(on_face(curve(bridge), 9), color, width)


def _draw_hand(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Four fingers that come from a lower corner and end on the cheek."""
    tone = now.cover_color[0]  # any skin, from light to dark
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


def _draw_scarf(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """Cloth over chin and mouth, with folds."""
    top, color = 40 - 11 * now.where, now.cover_color
    half: _Line = [(0, top), (20, top - 1), (38, top - 8), (50, top - 6), (56, 90), (0, 95)]
    sketch.fill(on_outline(blob(half), 22), color)
    fold = curve([(-44, top - 9), (-18, top), (4, top + 2), (44, top - 7)])
    for down in (8, 17, 27):
        sketch.line(on_outline(fold + np.array((0, down)), 22), shaded(color, 0.72), 1.6)


def _draw_hat(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """A cap down to the forehead, with a darker band."""
    low, side = -27 + 5 * now.where, (SIDE + 5) * who.head_width
    edge = curve([(x * side, low + 6 * x**2) for x in (-1, -0.5, 0, 0.5, 1)])
    crown = [(side + 2, -40), (side - 4, -95), (4 - side, -95), (-side - 2, -40)]
    sketch.fill(np.concatenate([on_outline(edge, 26), on_outline(crown)]), now.cover_color)
    band = np.concatenate([edge, edge[::-1] - np.array((0, 6))])
    sketch.fill(on_outline(band, 26), shaded(now.cover_color, 0.7))


_COVERS = {"hand": _draw_hand, "scarf": _draw_scarf, "hat": _draw_hat}


def draw(sketch: Sketch, who: Identity, now: Nuisance) -> None:
    """All of a face, from what lies behind to what lies in front."""
    parts = [_draw_back_hair, _draw_behind, _draw_skin, _draw_marks, _draw_folds]
    parts += [_draw_eyes, _draw_nose, _draw_mouth, _draw_hair, _draw_glasses]
    for draw_part in parts + ([_COVERS[now.cover]] if now.cover else []):
        draw_part(sketch, who, now)
