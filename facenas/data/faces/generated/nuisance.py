"""What differs between two images of one generated face: pose, light, expression, covers, camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facenas.data.faces.generated.identity import Colour

COVERS = ("hand", "scarf", "hat")


@dataclass(frozen=True)
class Pose:
    """Angles in radians, of the head; `roll`, `zoom` and `shift` are the errors of an alignment."""

    yaw: float
    pitch: float
    roll: float
    zoom: float
    shift: complex  # pixels to the right + 1j * pixels down


@dataclass(frozen=True)
class Expression:
    """Each 0 at rest. Eyes are closed at 1; brows and smile go both ways."""

    smile: float
    opening: float
    brows: float
    eyelids: float
    gaze: float


@dataclass(frozen=True)
class Light:
    """A lamp at `direction` (right, down, towards the viewer) over light from all sides."""

    direction: tuple[float, float, float]
    strength: float  # share of the lamp in all light, 0..1
    gloss: float
    colour: Colour  # gains of red, green and blue, around 1
    gamma: float


@dataclass(frozen=True)
class Camera:
    """Blur (pixels), a lower resolution than 112 (side in pixels), noise (grey levels), JPEG."""

    blur: float
    side: int
    noise: float
    quality: int


@dataclass(frozen=True)
class Nuisance:
    """All that is drawn anew for each image."""

    pose: Pose
    expression: Expression
    light: Light
    camera: Camera
    glasses: str  # "", "rims" or "dark"
    cover: str  # "" or one of COVERS
    where: float  # -1..1, place of the cover, shape of the glasses
    background: tuple[Colour, Colour, Colour]
    clothes: Colour
    glasses_colour: Colour
    cover_colour: Colour
    seed: int  # of the noise and the background


def draw_nuisance(rng: np.random.Generator) -> Nuisance:
    """The circumstances of one image, from what `rng` yields next."""
    covered = rng.uniform() < 0.1
    return Nuisance(
        pose=_pose(rng),
        expression=_expression(rng),
        light=_light(rng),
        camera=_camera(rng),
        glasses=str(rng.choice(["", "rims", "dark"], p=[0.8, 0.16, 0.04])),
        cover=str(rng.choice(COVERS)) if covered else "",
        where=rng.uniform(-1, 1),
        background=(_colour(rng), _colour(rng), _colour(rng)),
        clothes=_colour(rng),
        glasses_colour=_colour(rng),
        cover_colour=_colour(rng),
        seed=int(rng.integers(2**32)),
    )


def _colour(rng: np.random.Generator) -> Colour:
    """Of any hue and brightness, but not glaring."""
    grey = rng.uniform(30, 220)
    red, green, blue = 0.55 * grey + 0.45 * rng.uniform(0, 255, 3)
    return float(red), float(green), float(blue)


def _pose(rng: np.random.Generator) -> Pose:
    turn = np.clip(rng.normal(0, 1, 2), -2, 2) * np.radians((11, 6))
    shift = rng.normal(0, 1.1, 2)
    return Pose(
        yaw=turn[0],
        pitch=turn[1],
        roll=np.radians(rng.normal(0, 2.5)),
        zoom=float(np.exp(rng.normal(0, 0.025))),
        shift=complex(*shift),
    )


def _expression(rng: np.random.Generator) -> Expression:
    speaks, blinks = rng.uniform(size=2) < (0.3, 0.12)
    return Expression(
        smile=rng.uniform(-0.35, 1),
        opening=rng.uniform(0.1, 1) * speaks,
        brows=rng.normal(0, 0.5),
        eyelids=rng.uniform(0, 0.25) + rng.uniform(0.2, 0.75) * blinks,
        gaze=rng.normal(0, 0.4),
    )


def _light(rng: np.random.Generator) -> Light:
    direction = np.array((rng.normal(0, 0.9), rng.normal(-0.45, 0.55), 1.0))
    direction /= np.linalg.norm(direction)
    warmth, tint, exposure = rng.normal((0, 0, 0.1), (0.09, 0.025, 0.2))
    return Light(
        direction=(direction[0], direction[1], direction[2]),
        strength=rng.uniform(0.25, 0.85),
        gloss=rng.uniform(0, 0.22),
        colour=(
            float(np.exp(exposure + warmth)),
            float(np.exp(exposure + tint)),
            float(np.exp(exposure - warmth)),
        ),
        gamma=rng.uniform(0.8, 1.25),
    )


def _camera(rng: np.random.Generator) -> Camera:
    return Camera(
        blur=max(0.0, rng.normal(0.3, 0.4)),
        side=int(rng.integers(48, 113)) if rng.uniform() < 0.2 else 112,
        noise=rng.uniform(0, 6),
        quality=int(rng.integers(45, 96)),
    )
