"""What chance decides for a generated face: who it is, and what differs between two images of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Color = tuple[float, ...]  # red, green, blue on the 0..255 scale

COVERS = ("hand", "scarf", "hat")

# Anchors from light to dark. Neighbors overlap once light and color cast vary, so that no face is
# known by its mean color.
_SKIN = ((246, 206, 180), (236, 184, 150), (216, 157, 119), (190, 129, 92), (156, 101, 70))
_HAIR = ((38, 30, 28), (62, 44, 34), (94, 64, 42), (126, 84, 50), (168, 128, 78), (150, 146, 142))
_IRIS = ((58, 38, 26), (98, 66, 36), (104, 108, 60), (78, 118, 106), (84, 124, 160))


def mixed(one: Color, other: Color, share: float) -> Color:
    """`one` with a share (0..1) of `other`."""
    return tuple((1 - share) * a + share * b for a, b in zip(one, other, strict=True))


def shaded(color: Color, gain: float) -> Color:
    """The color times `gain`."""
    return tuple(gain * value for value in color)


def _range(low: float, high: float) -> Any:
    """A factor drawn evenly between two bounds."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True, eq=False)
class Identity:
    """Factors of a face. Lengths are in pixels of the 112x112 crop, or ratios to the mean face."""

    skin: Color
    hair: Color
    iris: Color
    bald: bool
    hair_length: float  # lower end of the hair, in pixels below the eyes
    moustache: float  # densities of the parts of a beard, 0 for none
    chin_beard: float
    cheek_beard: float
    moles: NDArray[np.float64]  # (n, 3) x, y, radius
    freckles: NDArray[np.float64]  # (n, 2) x, y
    scar: NDArray[np.float64]  # (0 or 4, 2) x, y along it
    head_width: float = _range(0.9, 1.1)
    forehead: float = _range(0.9, 1.08)
    jaw_width: float = _range(0.84, 1.13)
    jaw_height: float = _range(-4, 5)
    chin_width: float = _range(0.6, 1.45)
    chin: float = _range(-6, 6)  # how far the chin lies below the mean one
    cheekbones: float = _range(0.0, 1.6)
    ear_size: float = _range(0.75, 1.25)
    ear_angle: float = _range(-2.5, 3.5)  # how far the ears stand off
    eye_spacing: float = _range(-2.6, 2.6)
    eye_width: float = _range(0.78, 1.2)
    eye_height: float = _range(0.7, 1.35)
    eye_tilt: float = _range(-0.24, 0.24)  # radians; outer corners up for positive values
    eye_depth: float = _range(0.4, 1.6)
    iris_size: float = _range(0.88, 1.14)
    lid_crease: float = _range(-1.2, 2.2)  # height of the crease above the lid; none below 0
    lashes: float = _range(0.6, 1.7)
    brow_height: float = _range(-2.2, 3.4)
    brow_thickness: float = _range(0.5, 2.1)
    brow_arch: float = _range(-0.6, 3.4)
    brow_tilt: float = _range(-0.2, 0.2)
    brow_length: float = _range(0.82, 1.2)
    brow_darkness: float = _range(0.55, 1.0)
    nose_length: float = _range(-3.6, 4.0)
    nose_width: float = _range(0.72, 1.4)
    nose_bridge: float = _range(0.5, 1.7)
    nose_tip: float = _range(0.5, 1.6)
    mouth_height: float = _range(-2.6, 2.8)
    mouth_width: float = _range(0.78, 1.22)
    upper_lip: float = _range(0.45, 1.7)
    lower_lip: float = _range(0.55, 1.6)
    cupid_bow: float = _range(0.1, 1.9)
    mouth_corners: float = _range(-1.2, 1.8)
    lip_redness: float = _range(0.1, 1.0)
    folds: float = _range(0.0, 1.0)  # lines from nose to mouth, and below the eyes
    hairline: float = _range(-43, -27)
    temples: float = _range(-3, 11)  # how far the hairline goes back beside the forehead
    widows_peak: float = _range(-4, 5)
    parting: float = _range(-1, 1)  # side on which the hair is parted
    sweep: float = _range(0, 11)  # how far it falls on the other side
    hair_volume: float = _range(0, 9)
    curl: float = _range(0, 1)


def draw_identity(rng: np.random.Generator) -> Identity:
    """One identity, from what `rng` yields next."""
    ranges = ((part.name, part.metadata.get("range")) for part in fields(Identity))
    factors: dict[str, Any] = {name: rng.uniform(*bounds) for name, bounds in ranges if bounds}
    return Identity(
        **factors,
        skin=_along(_SKIN, rng.beta(1.6, 1.6), rng.normal(0, 3, 3)),
        hair=_along(_HAIR, rng.beta(0.9, 1.3), rng.normal(0, 5, 3)),
        iris=_along(_IRIS, rng.uniform(), rng.normal(0, 6, 3)),
        bald=rng.uniform() < 0.08,
        hair_length=rng.choice([-8.0, 8.0, 40.0, 90.0], p=[0.3, 0.25, 0.15, 0.3]),
        **_beard(rng),
        **_marks(rng),
    )


def _along(anchors: tuple[Color, ...], where: float, noise: NDArray[np.float64]) -> Color:
    """The color at `where` (0..1) along the anchors, plus noise."""
    position = where * (len(anchors) - 1)
    low = min(int(position), len(anchors) - 2)
    color = mixed(anchors[low], anchors[low + 1], position - low)
    return tuple((np.array(color) + noise).tolist())


def _beard(rng: np.random.Generator) -> dict[str, Any]:
    """Densities of moustache, chin beard and cheek beard; 0 for most faces."""
    kinds = ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (1, 1, 1))
    kind = kinds[rng.choice(len(kinds), p=[0.62, 0.08, 0.1, 0.05, 0.15])]
    density = rng.uniform(0.3, 0.95)
    names = ("moustache", "chin_beard", "cheek_beard")
    return {name: density * present for name, present in zip(names, kind, strict=True)}


def _marks(rng: np.random.Generator) -> dict[str, Any]:
    """Moles on 45 % of the faces, freckles on 20 %, a scar on 8 %."""
    moles = rng.uniform((-30, -24, 0.6), (30, 54, 1.5), (4, 3))[: rng.integers(1, 5)]
    freckles = rng.normal((0, 14), (17, 7), (60, 2))[: rng.integers(20, 61)]
    start, along = rng.uniform((-26, -26), (26, 34)), rng.uniform((-7, 4), (7, 13))
    scar = start + np.linspace(0, 1, 4)[:, None] * along + rng.normal(0, 0.6, (4, 2))
    marks = {"moles": moles, "freckles": freckles, "scar": scar}
    present = rng.uniform(size=3) < (0.45, 0.2, 0.08)
    return {name: mark[: len(mark) * there] for (name, mark), there in zip(marks.items(), present, strict=True)}


@dataclass(frozen=True)
class Nuisance:
    """All that is drawn anew for each image."""

    # Of the head, radians. Roll, zoom and shift (pixels right + 1j * pixels down) err as alignments do.
    yaw: float
    pitch: float
    roll: float
    zoom: float
    shift: complex
    # Of the face, each 0 at rest. Eyes are closed at 1; brows and smile go both ways.
    smile: float
    opening: float
    brows: float
    eyelids: float
    gaze: float
    # A lamp at `direction` (right, down, towards the viewer) over light from all sides.
    direction: tuple[float, float, float]
    strength: float  # share of the lamp in all light, 0..1
    gloss: float
    cast: Color  # gains of red, green and blue, around 1
    gamma: float
    # The camera.
    blur: float  # pixels
    side: int  # pixels, of its resolution
    noise: float  # grey levels
    quality: int  # of its JPEG
    glasses: str  # "", "rims" or "dark"
    cover: str  # "" or one of COVERS
    where: float  # -1..1, place of the cover, shape of the glasses
    background: tuple[Color, Color, Color]
    clothes: Color
    glasses_color: Color
    cover_color: Color
    seed: int  # of the noise and the background


def draw_nuisance(rng: np.random.Generator) -> Nuisance:
    """The circumstances of one image, from what `rng` yields next: arguments are drawn in their order."""
    covered = rng.uniform() < 0.1
    return Nuisance(
        **_pose(rng),
        **_expression(rng),
        **_light(rng),
        blur=max(0.0, rng.normal(0.3, 0.4)),
        side=int(rng.integers(48, 113)) if rng.uniform() < 0.2 else 112,
        noise=rng.uniform(0, 6),
        quality=int(rng.integers(45, 96)),
        glasses=str(rng.choice(["", "rims", "dark"], p=[0.8, 0.16, 0.04])),
        cover=str(rng.choice(COVERS)) if covered else "",
        where=rng.uniform(-1, 1),
        background=(_color(rng), _color(rng), _color(rng)),
        clothes=_color(rng),
        glasses_color=_color(rng),
        cover_color=_color(rng),
        seed=int(rng.integers(2**32)),
    )


def _color(rng: np.random.Generator) -> Color:
    """Of any hue and brightness, but not glaring."""
    grey = rng.uniform(30, 220)
    return tuple((0.55 * grey + 0.45 * rng.uniform(0, 255, 3)).tolist())


def _pose(rng: np.random.Generator) -> dict[str, Any]:
    yaw, pitch = np.clip(rng.normal(0, 1, 2), -2, 2) * np.radians((11, 6))
    shift = complex(*rng.normal(0, 1.1, 2))
    roll, zoom = np.radians(rng.normal(0, 2.5)), float(np.exp(rng.normal(0, 0.025)))
    return {"yaw": yaw, "pitch": pitch, "roll": roll, "zoom": zoom, "shift": shift}


def _expression(rng: np.random.Generator) -> dict[str, Any]:
    speaks, blinks = rng.uniform(size=2) < (0.3, 0.12)
    return {
        "smile": rng.uniform(-0.35, 1),
        "opening": rng.uniform(0.1, 1) * speaks,
        "brows": rng.normal(0, 0.5),
        "eyelids": rng.uniform(0, 0.25) + rng.uniform(0.2, 0.75) * blinks,
        "gaze": rng.normal(0, 0.4),
    }


def _light(rng: np.random.Generator) -> dict[str, Any]:
    direction = np.array((rng.normal(0, 0.9), rng.normal(-0.45, 0.55), 1.0))
    warmth, tint, exposure = rng.normal((0, 0, 0.1), (0.09, 0.025, 0.2))
    gains = np.exp([exposure + warmth, exposure + tint, exposure - warmth])
    return {
        "direction": tuple(direction / np.linalg.norm(direction)),
        "strength": rng.uniform(0.25, 0.85),
        "gloss": rng.uniform(0, 0.22),
        "cast": tuple(gains.tolist()),
        "gamma": rng.uniform(0.8, 1.25),
    }
