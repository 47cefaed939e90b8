"""`check.html` and `findings.csv`: what the check of a store of faces has found, with the pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from facenas.data.faces.drops import DROP
from facenas.evaluation.data_check import NEAR_COSINE, NEAR_PIXELS, DataCheck, Finding, Kind, People
from facenas.files import write_text
from facenas.report.format import NBSP, count, fixed
from facenas.report.html import Tile, render

_SHOWN = 48  # findings of a kind: 5 pictures of 3 KB each
_PICTURES = 3  # of each side of a finding
_JPEG_QUALITY = 85

# By kind: the title, what it means, and what the score is.
_KINDS: dict[Kind, tuple[str, str]] = {
    "mislabeled": (
        "Nearer to another identity than to their own",
        "First the image, then others of its own identity, then the images of the other identity that are most "
        "like it. Score: cosine to the mean of the other identity; in brackets, to that of its own others.",
    ),
    "unlike": (
        "Unlike their own identity",
        "First the image, then the others: it is as unlike them as a stranger, and nobody else here is like "
        "it. Score: mean cosine to the others.",
    ),
    "two_people": (
        "Identities that look like two people",
        "Two groups of images under one name, as unlike each other as strangers. Score: mean cosine between "
        "them. The list has the smaller group: write drop where that is right.",
    ),
    "one_person": (
        "Identities that look like one person",
        "Two names. Score: cosine of their means; twins and parents with children may have it too. The list "
        "has the images of the smaller identity.",
    ),
    "duplicate": (
        "One photograph twice under one name",
        "First the image to drop, then the one that stays. Score: correlation of the pixels; 1 where the bytes "
        "are the same.",
    ),
    "one_photograph": (
        "One photograph under two names",
        "First the image that fits its identity worse. It is to be dropped where the other one fits; else "
        "neither is known to be right. Score: correlation of the pixels.",
    ),
    "shared_image": (
        "Images that are in both sets",
        "First the image of this store, then that of the other set. Score: correlation of the pixels.",
    ),
    "shared_person": (
        "People who are in both sets",
        "First images of this store, then of the other set. Score: cosine of the means. The list has all "
        "images of the person in this store.",
    ),
}
_OF: dict[str, tuple[Kind, ...]] = {
    "labels": ("mislabeled", "unlike", "two_people", "one_person"),
    "duplicates": ("duplicate", "one_photograph"),
    "overlap": ("shared_image", "shared_person"),
}


class Group(NamedTuple):
    """Pictures that belong together: of whom, and each with its name."""

    title: str
    pictures: list[tuple[str, str]]


def write_check(folder: Path, found: DataCheck) -> None:
    """Writes `check.html`, then `findings.csv`, into `folder`, which is made; raises as `write_text` does."""
    folder.mkdir(parents=True, exist_ok=True)
    findings = folder / "findings.csv"
    command = f"facenas data import {found.store.path} clean.zarr --drop {findings}"
    text = render(
        "check.html.j2",
        {},
        store=found.store,
        model=found.model,
        other=found.other.path if found.other else None,
        tiles=list(_tiles(found)),
        warnings=found.warnings,
        rules=list(_rules(found)),
        sections=[_section(found, kind) for part, of in _OF.items() if part in found.asked for kind in of],
        command=command,
    )
    write_text(folder / "check.html", text)
    write_text(findings, found.csv())


def _tiles(found: DataCheck) -> Iterator[Tile]:
    identities = found.store.identities
    yield (
        "Images",
        count(len(found.store)),
        f"of {count(identities)} identit{'y' if identities == 1 else 'ies'}",
    )
    yield "Findings", count(len(found.findings)), "the surest first, kind by kind"
    drop = {number for one in found.findings if one.action == DROP for number in one.images}
    yield "To drop", count(len(drop)), "images, unless you change findings.csv"


def _section(found: DataCheck, kind: Kind) -> dict[str, Any]:
    these = [one for one in found.findings if one.kind == kind]
    return {
        "kind": kind,
        "title": _KINDS[kind][0],
        "text": _KINDS[kind][1],
        "count": len(these),
        "findings": [_card(found, one) for one in these[:_SHOWN]],
    }


def _card(found: DataCheck, one: Finding) -> dict[str, Any]:
    own = f" ({fixed(one.own)})" if one.own is not None else ""
    return {"groups": list(_groups(found, one)), "score": fixed(one.score) + own, "action": one.action}


def _groups(found: DataCheck, one: Finding) -> Iterator[Group]:
    here = found.people
    yield _group(here, one.identity if len(one.images) > 1 else here.image_names[one.images[0]], one.images)
    if one.kind == "mislabeled":
        others = np.flatnonzero(here.labels == here.labels[one.images[0]])
        rest = tuple(number for number in others.tolist() if number not in one.images)[: _PICTURES - 1]
        yield _group(here, f"others of {one.identity}", rest)
    beside = found.other if one.other and found.other else here
    title = beside.names[int(beside.labels[one.beside[0]])]
    if one.kind in ("unlike", "two_people"):
        title = f"others of {title}"
    elif len(one.beside) == 1:
        title = beside.image_names[one.beside[0]]
    yield _group(beside, title, one.beside[: _PICTURES - 1] if one.kind == "mislabeled" else one.beside)


def _group(people: People, title: str, numbers: tuple[int, ...]) -> Group:
    some = numbers[:_PICTURES]
    more = f", {len(some)} of {len(numbers)}" if len(numbers) > len(some) else ""
    pixels = people.images.read(np.array(some, np.int64))
    return Group(
        title + more, [(people.image_names[n], _data_uri(one)) for n, one in zip(some, pixels, strict=True)]
    )


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), _JPEG_QUALITY, "RGB", "420")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _rules(found: DataCheck) -> Iterator[tuple[str, str]]:
    """Limits and where each comes from."""
    if found.limits is None:
        return
    limits = found.limits
    if "labels" in found.asked:
        yield (
            f"nearest {fixed(limits.nearest)}",
            f"1{NBSP}% of images with the right label have as much to the mean of any other identity: the "
            "largest of many scores, by the Gumbel distribution that fits the lower half of those found here",
        )
        yield f"unlike {fixed(limits.unlike)}", f"99{NBSP}% of pairs of two people of this store have less"
    of_names = {"names": limits.names if "labels" in found.asked else None, "both sets": limits.shared}
    for name, limit in of_names.items():
        if limit is not None:
            yield (
                f"{name} {fixed(limit)}",
                "the mean of one in a thousand identities has as much to another's, by the same distribution; "
                "and more than half of either one's images must be nearer than chance",
            )
    if {"duplicates", "overlap"} & set(found.asked):
        yield (
            f"photograph {fixed(NEAR_PIXELS)}",
            f"correlation of fine pixels at small shifts, where the cosine is {fixed(NEAR_COSINE)} or more",
        )
    if limits.genuine is not None:
        yield (
            f"genuine {fixed(limits.genuine)}",
            "median of the cosines of images to their own identity's others",
        )
