"""IJB-C at its official size: reading its text files, pooling, scoring and ROC, against the peers' loops.

    python -m tools.evaluation_bench.ijb [--scale 1.0]

Made up in a temporary folder (1.5 GB, of subjects in clusters, so that scores are like real ones): 469,375
features of 512 float32, 23,124 templates (3,531 of the gallery, 19,593 probes), 15,658,489 pairs in random
order, of which 19,557 genuine, in text files of the official form. Theirs is the procedure of
`deepinsight/insightface:recognition/_evaluation_/ijb/ijb_11.py`, which AdaFace shares, restated without its
prints and pictures: a loop over templates, chunks of 100,000 pairs, scikit-learn's `roc_curve`. Each runs in
a process of its own, which measures its largest memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Row, show

SIZE = 512
IMAGES, GALLERY, PROBES, PAIRS, GENUINE = 469_375, 3_531, 19_593, 15_658_489, 19_557
FIRST_LIMIT, AGAIN_LIMIT, MEMORY_LIMIT = 15.0, 2.0, 6.0  # seconds, seconds, GB
LINES_AT_ONCE = 1 << 20


def rows(scale: float = 1.0) -> list[Row]:
    """What was measured: ours, theirs or the limit, in seconds. AssertionError when a number differs."""
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process("make", folder, str(scale))
        ours, theirs = (_in_a_process(part, folder) for part in ("ours", "theirs"))
        vectors, scores = (_difference(Path(folder), what) for what in ("vectors", "scores"))
    assert (vectors, ours["tars"]) == (0, theirs["tars"])
    assert scores < 1e-14
    total, their_total = (sum(part[step] for step in ("pooling", "scoring", "roc")) for part in (ours, theirs))
    memory = f"{ours['memory']:.1f} GB at most (limit {MEMORY_LIMIT:g}), theirs {theirs['memory']:.1f}"
    tars = ", ".join(f"{100 * tar:.2f}" for tar in ours["tars"])
    return [
        ("IJB-C text files, first time", ours["first"], FIRST_LIMIT, "the limit"),
        ("IJB-C text files, again", ours["again"], AGAIN_LIMIT, "the limit"),
        ("IJB-C pooling", ours["pooling"], theirs["pooling"], "equal to the last bit"),
        ("IJB-C scoring", ours["scoring"], theirs["scoring"], f"within {scores:.1e}"),
        ("IJB-C ROC", ours["roc"], theirs["roc"], f"TARs equal: {tars} %"),
        ("IJB-C pooling, scoring, ROC", total, their_total, memory),
    ]


def _in_a_process(part: str, *words: str) -> dict[str, Any]:
    # This process stays small: a child counts its parent's memory as its own peak.
    command = [sys.executable, "-m", f"{__package__}.ijb", "--part", part, *words]
    told = subprocess.run(
        command,
        check=True,
        cwd=Path(__file__).parents[__package__.count(".") + 1],
        env=os.environ | {"FACENAS_CACHE": str(Path(words[0], "cache"))},
        stdout=subprocess.PIPE,
    )
    return json.loads(told.stdout)


def _difference(folder: Path, what: str) -> float:
    ours, theirs = (np.load(folder / f"{who}_{what}.npy", mmap_mode="r") for who in ("ours", "theirs"))
    blocks = range(0, len(ours), LINES_AT_ONCE)
    parts = (slice(start, start + LINES_AT_ONCE) for start in blocks)
    return max(float(np.abs(ours[part] - theirs[part]).max()) for part in parts)


def make(folder: Path, scale: float) -> dict[str, Any]:
    """Features and text files; templates 1.. are of the gallery, a subject each, then come the probes."""
    rng = np.random.default_rng(0)
    images, gallery, probes = (max(60, int(scale * n)) for n in (IMAGES, GALLERY, PROBES))
    subject_of = np.concatenate([np.arange(gallery), rng.integers(0, gallery, probes)])
    templates = len(subject_of)
    of_image = np.concatenate([np.arange(templates), rng.integers(0, templates, images - templates)])
    of_image = rng.permutation(of_image)
    media = of_image * 100 + rng.integers(0, 6, images)
    _make_features(folder / "features.npy", of_image, subject_of, rng)
    meta = folder / "IJBC" / "meta"
    meta.mkdir(parents=True)
    names = [f"{k + 1}.jpg" for k in range(images)]
    faces = zip(names, (of_image + 1).tolist(), media.tolist(), strict=True)
    with (meta / "ijbc_face_tid_mid.txt").open("w") as file:
        file.writelines(map("%s %d %d\n".__mod__, faces))
    with (meta / "ijbc_name_5pts_score.txt").open("w") as file:
        for name, marks in zip(names, rng.uniform(30, 110, (images, 11)).tolist(), strict=True):
            file.write(name + " %.3f" * 10 % tuple(marks[:10]) + f" {marks[10] / 110:.3f}\n")
    _make_pairs(meta / "ijbc_template_pair_label.txt", subject_of, gallery, scale, rng)
    return {}


def _make_features(
    path: Path, of_image: NDArray[Any], subject_of: NDArray[Any], rng: np.random.Generator
) -> None:
    """Clusters around subjects, in them around templates; norms differ as those of real images do."""
    draw = rng.standard_normal
    subjects = draw((subject_of.max() + 1, SIZE), np.float32)
    quality = rng.lognormal(0.25, 0.35, len(subject_of)).astype(np.float32)
    centres = subjects[subject_of] + quality[:, None] * draw((len(subject_of), SIZE), np.float32)
    features = np.lib.format.open_memmap(path, "w+", np.float32, (len(of_image), SIZE))
    for start in range(0, len(of_image), 1 << 14):
        here = of_image[start : start + (1 << 14)]
        noisy = centres[here] + draw((len(here), SIZE), np.float32)
        features[start : start + len(here)] = noisy * rng.uniform(0.3, 1.2, (len(here), 1))


def _make_pairs(
    path: Path, subject_of: NDArray[Any], gallery: int, scale: float, rng: np.random.Generator
) -> None:
    genuine, pairs = (int(scale * n) for n in (GENUINE, PAIRS))
    probe = np.append(
        gallery + rng.permutation(len(subject_of) - gallery)[:genuine],
        rng.integers(gallery, len(subject_of), pairs - genuine),
    )
    first = np.append(subject_of[probe[:genuine]], rng.integers(0, gallery, pairs - genuine))
    wrong = np.flatnonzero(first[genuine:] == subject_of[probe[genuine:]]) + genuine
    first[wrong] = (first[wrong] + 1) % gallery
    order = rng.permutation(pairs)
    columns = (first + 1, probe + 1, np.arange(pairs) < genuine)
    with path.open("w") as file:
        for start in range(0, pairs, LINES_AT_ONCE):
            some = order[start : start + LINES_AT_ONCE]
            lines = zip(*(column[some].tolist() for column in columns), strict=True)
            file.writelines(map("%d %d %d\n".__mod__, lines))


def ours(folder: Path) -> dict[str, Any]:
    """Seconds, numbers and peak memory of facenas."""
    from facenas.evaluation.benches import find_bench
    from facenas.evaluation.benches.ijb import read_meta
    from facenas.evaluation.metrics.roc import tar_at_nearest_fars
    from facenas.evaluation.metrics.templates import FARS, pool_templates, score_pairs

    clock = Clock()
    read_meta(find_bench("ijbc"), folder / "IJBC")
    clock.lap("first")
    meta = read_meta(find_bench("ijbc"), folder / "IJBC")
    clock.lap("again")
    features = np.load(folder / "features.npy")
    clock.lap("features")
    pooled = pool_templates(features, meta.templates, meta.media)
    clock.lap("pooling")
    scores = score_pairs(pooled, meta.pairs)
    clock.lap("scoring")
    tars = tar_at_nearest_fars(scores, meta.same, FARS)
    clock.lap("roc")
    return _told(folder, "ours", clock, pooled.vectors, scores, list(tars.values()))


def theirs(folder: Path) -> dict[str, Any]:
    """The same of the peers' procedure, on arrays that are read already."""
    from facenas.evaluation.benches import find_bench
    from facenas.evaluation.benches.ijb import read_meta

    meta = read_meta(find_bench("ijbc"), folder / "IJBC")
    features = np.load(folder / "features.npy")
    templates, media, same = (np.array(x) for x in (meta.templates, meta.media, meta.same))
    first, second = np.array(meta.pairs.T)
    clock = Clock()
    vectors, unique = image2template_feature(features, templates, media)
    clock.lap("pooling")
    scores = verification(vectors, unique, first, second)
    clock.lap("scoring")
    tars = write_result(same.astype(int), scores)
    clock.lap("roc")
    return _told(folder, "theirs", clock, vectors, scores, tars)


class Clock(dict[str, float]):
    """Seconds between laps."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Notes what passed since the last one."""
        self[name], self._last = time.perf_counter() - self._last, time.perf_counter()


def _told(
    folder: Path,
    who: str,
    clock: Clock,
    vectors: NDArray[Any],
    scores: NDArray[Any],
    tars: list[float],
) -> dict[str, Any]:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    np.save(folder / f"{who}_vectors.npy", vectors)
    np.save(folder / f"{who}_scores.npy", scores)
    return clock | {"memory": memory, "tars": tars}


def image2template_feature(
    features: NDArray[Any], templates: NDArray[Any], media: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Theirs: for each template the means of its media, summed, then all normalised."""
    from sklearn.preprocessing import normalize

    unique = np.unique(templates)
    pooled = np.zeros((len(unique), features.shape[1]))
    for count, template in enumerate(unique):
        (own,) = np.where(templates == template)
        own_features, own_media = features[own], media[own]
        found = []
        for medium, images in zip(*np.unique(own_media, return_counts=True), strict=True):
            (here,) = np.where(own_media == medium)
            if images == 1:
                found += [own_features[here]]
            else:
                found += [np.mean(own_features[here], axis=0, keepdims=True)]
        pooled[count] = np.sum(np.array(found), axis=0)
    return normalize(pooled), unique


def verification(
    vectors: NDArray[Any], unique: NDArray[Any], first: NDArray[Any], second: NDArray[Any]
) -> NDArray[Any]:
    """Theirs: both vectors of 100,000 pairs at a time."""
    place = np.zeros((max(unique) + 1, 1), dtype=int)
    for count, template in enumerate(unique):
        place[template] = count
    scores = np.zeros(len(first))
    all_pairs = np.array(range(len(first)))
    for chunk in [all_pairs[i : i + 100_000] for i in range(0, len(first), 100_000)]:
        left, right = vectors[place[first[chunk]]], vectors[place[second[chunk]]]
        scores[chunk] = np.sum(left * right, -1).flatten()
    return scores


def write_result(same: NDArray[Any], scores: NDArray[Any]) -> list[float]:
    """Theirs: the point of scikit-learn's curve that is nearest to each rate."""
    from sklearn.metrics import roc_curve

    far, tar, _ = roc_curve(same, scores)
    far, tar = np.flipud(far), np.flipud(tar)
    found = []
    for rate in [10**-6, 10**-5, 10**-4, 10**-3, 10**-2, 10**-1]:
        _, index = min(list(zip(abs(far - rate), range(len(far)), strict=True)))
        found.append(float(tar[index]))
    return found


def main() -> None:
    """Prints the rows, or does one part of the work in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the official size")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.part is None:
        show(rows(words.scale))
        return
    part, folder, *rest = words.part
    parts = {"make": make, "ours": ours, "theirs": theirs}
    print(json.dumps(parts[part](Path(folder), *map(float, rest))))


if __name__ == "__main__":
    main()
