"""Who is it, on Labeled Faces in the Wild: rank-1 of known people, and unknown people turned away.

    python tools/lfw_identification.py lfw_112x112.zip network.onnx [--svg docs/images/lfw_identification.svg]

The 1,680 people with two or more images are enrolled, the 4,069 with one image are the unknown. Twice: with
the first image of each, all their others being probes; and with all images but the last, which is the probe.
Prints the tables of docs/identification.md; embeddings stay in the cache, so a second run takes seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lfw_identification_chart import chart
from numpy.typing import NDArray

from facenas.evaluation.embedders import open_embedder
from facenas.evaluation.embedders.cache import extract
from facenas.evaluation.gallery import mean_templates, own_threshold, search
from facenas.evaluation.identify import FaceImages
from facenas.evaluation.metrics.checks import unit_rows

THRESHOLDS = (0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50)
FPIRS = (0.001, 0.01, 0.1)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class People:
    """Numbers of images: of each person with two or more, in order of their names, and of the others."""

    known: list[list[int]]
    unknown: list[int]


@dataclass(frozen=True)
class Trial:
    """One way to enroll: the gallery's own threshold; (m,) best scores of known people's probes, and whether
    the name was right, also among the five best; (u,) best scores of unknown people.
    """

    title: str
    threshold: float
    known: Floats
    right: NDArray[np.bool_]
    right_in_5: NDArray[np.bool_]
    unknown: Floats

    def identified(self, threshold: float) -> float:
        """The share of known people's probes above the threshold that were named rightly (TPIR)."""
        return float((self.right & (self.known > threshold)).mean())

    def mistaken(self, threshold: float) -> float:
        """The share of known people's probes that were given another's name."""
        return float((~self.right & (self.known > threshold)).mean())

    def alarms(self, threshold: float) -> float:
        """The share of unknown people's probes that were given a name (FPIR)."""
        return float((self.unknown > threshold).mean())

    def threshold_at(self, fpir: float) -> float:
        """The lowest threshold at which no more than this share of unknown people gets a name."""
        allowed = int(fpir * len(self.unknown))
        return float(np.sort(self.unknown)[::-1][allowed])


def people_of(names: Sequence[str]) -> People:
    """Sorts images `.../<person>/<image>` by person."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        found.setdefault(name.split("/")[-2], []).append(number)
    known = [numbers for numbers in found.values() if len(numbers) > 1]
    return People(known, [numbers[0] for numbers in found.values() if len(numbers) == 1])


def trial(title: str, rows: Floats, people: People, enrolled: slice, probes: slice) -> Trial:
    """Enrolls some images of each known person, and looks for others of theirs and for unknown people."""
    images = [numbers[enrolled] for numbers in people.known]
    labels = np.repeat(np.arange(len(images)), [len(numbers) for numbers in images])
    templates = mean_templates(rows[np.concatenate(images)], labels)
    asked = [(number, who) for who, numbers in enumerate(people.known) for number in numbers[probes]]
    numbers, owners = np.array(asked).T
    scores, found = search(templates, rows[numbers], 5)
    hits = found == owners[:, None]
    unknown, _ = search(templates, rows[people.unknown], 1)
    own = own_threshold(templates, rows[np.concatenate(images)], labels) or 0.0
    return Trial(title, own, scores[:, 0], hits[:, 0], hits.any(axis=1), unknown[:, 0])


def best_image_rank_1(rows: Floats, people: People) -> float:
    """Rank-1 with all images but the last enrolled, if the best image counted instead of the mean."""
    images = np.concatenate([numbers[:-1] for numbers in people.known])
    owner = np.repeat(np.arange(len(people.known)), [len(numbers) - 1 for numbers in people.known])
    _, found = search(rows[images], rows[[numbers[-1] for numbers in people.known]], 1)
    return float((owner[found[:, 0]] == np.arange(len(people.known))).mean())


def print_tables(trials: Sequence[Trial]) -> None:
    """Three tables in Markdown."""
    print("| enrolled | known probes | rank 1 | rank 5 | unknown |\n|---|---|---|---|---|")
    for one in trials:
        ranks = f"{100 * one.right.mean():.2f} % | {100 * one.right_in_5.mean():.2f} %"
        print(f"| {one.title} | {len(one.known):,} | {ranks} | {len(one.unknown):,} |")
    print("\n| enrolled | FPIR | threshold | TPIR |\n|---|---|---|---|")
    for one in trials:
        for limit in (one.threshold, *map(one.threshold_at, FPIRS)):
            fpir = one.alarms(limit)
            print(f"| {one.title} | {100 * fpir:.2f} % | {limit:.3f} | {100 * one.identified(limit):.2f} % |")
    first = trials[0]
    print(f"\n{first.title}:\n")
    print("| threshold | known, right name | known, wrong name | known, turned away | unknown, turned away |")
    print("|---|---|---|---|---|")
    for limit in THRESHOLDS:
        right, wrong = first.identified(limit), first.mistaken(limit)
        shares = (right, wrong, float((first.known <= limit).mean()), 1 - first.alarms(limit))
        print(f"| {limit:.2f} | " + " | ".join(f"{100 * share:.2f} %" for share in shares) + " |")


def main() -> None:
    """Embeds, tries, prints and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    faces = FaceImages(arguments.images)
    rows = np.asarray(unit_rows(extract(open_embedder(arguments.model), faces), "rows"), np.float32)
    people = people_of(faces.names)
    trials = [
        trial("first image", rows, people, slice(0, 1), slice(1, None)),
        trial("all but the last", rows, people, slice(0, -1), slice(-1, None)),
    ]
    print_tables(trials)
    best = 100 * best_image_rank_1(rows, people)
    print(f"\nBest image instead of the mean, all but the last enrolled: rank 1 {best:.2f} %")
    if arguments.svg:
        arguments.svg.write_text(chart(trials), encoding="utf-8")


if __name__ == "__main__":
    main()
