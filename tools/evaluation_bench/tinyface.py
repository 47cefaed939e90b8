"""TinyFace at its official size, 3,728 probes against 157,871 gallery images, beside AdaFace's procedure.

    python -m tools.evaluation_bench.tinyface

Theirs (`test_identification`, `DIR_FAR`): all scores, a matrix of labels, copies of both for the probes with
a mate, a full argsort of each row, the labels in that order. In one piece it needs 11 GB, so it runs in eight
parts of the probes, each as it would run alone; their times are added up, nothing is extrapolated. Ours, as
it is called, in one go, with the mean average precision that theirs does not compute. Both multiply probes by
gallery in float32, which no way of ranking can spare: so there is a row of the ranking alone, of scores
given, and one of the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation import rank_k
from facenas.evaluation.metrics.ranking import mates_of, places

from . import Row, show, timed

PROBES, MATCHES, DISTRACTORS, IDENTITIES, SIZE = 3728, 4443, 153_428, 2569, 512
KS = (1, 5, 20)
PARTS = 8

Scores = NDArray[np.float32]
Ids = NDArray[np.int64]


def rows(probes: int = PROBES, matches: int = MATCHES, distractors: int = DISTRACTORS) -> list[Row]:
    """The ranking alone and the whole; raises AssertionError when a number differs."""
    probe, gallery, probe_ids, gallery_ids = draw(probes, matches, distractors)
    mates = mates_of(probe_ids, gallery_ids)
    ours, found = timed(lambda: rank_k(probe, gallery, probe_ids, gallery_ids, KS))
    ranking, multiplying, sorting, hits = 0.0, 0.0, 0.0, np.zeros(len(KS), int)
    for part in np.array_split(np.arange(probes), PARTS):
        seconds, scores = timed(lambda part=part: np.dot(probe[part], gallery.T))
        multiplying += seconds
        seconds, right = timed(lambda part=part, s=scores: dir_far(s, probe_ids[part], gallery_ids))
        sorting, hits = sorting + seconds, hits + right
        seconds, _ = timed(
            lambda part=part, s=scores: [places(*of) for of in zip(s, pick(mates, part), strict=True)]
        )
        ranking += seconds
    mated = probes - found.probes_without_mate
    np.testing.assert_array_equal(hits, np.round(np.array(list(found.rank.values())) * mated))
    told = ", ".join(f"rank-{k} {100 * share:.2f} %" for k, share in found.rank.items())
    size = f"TinyFace, {probes:,} x {len(gallery):,}"
    multiplied = f"{multiplying:.1f} s of theirs are the multiplication"
    return [
        (f"{size}: ranking of given scores", ranking, sorting, f"numbers equal ({told})"),
        (f"{size}: whole", ours, multiplying + sorting, f"numbers equal; {multiplied}"),
    ]


def draw(probes: int, matches: int, distractors: int) -> tuple[Scores, Scores, Ids, Ids]:
    """Unit probes and gallery round the centres of identities, some blurred beyond recognition, and ids."""
    rng = np.random.default_rng(0)
    identities = min(IDENTITIES, matches)
    of_gallery = np.concatenate([np.arange(identities), rng.integers(0, identities, matches - identities)])
    of_probes = rng.integers(0, identities, probes)
    centres = rng.normal(size=(identities, SIZE)).astype(np.float32)
    found = []
    for ids, strangers in ((of_probes, 0), (of_gallery, distractors)):
        rows = rng.standard_normal((len(ids) + strangers, SIZE), np.float32)
        rows[: len(ids)] *= rng.uniform(0.5, 3, (len(ids), 1)).astype(np.float32)
        rows[: len(ids)] += centres[ids]
        found.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return found[0], found[1], of_probes, np.append(of_gallery, np.full(distractors, -100))


def dir_far(scores: Scores, probe_ids: Ids, gallery_ids: Ids) -> NDArray[np.int64]:
    """The peers' procedure in closed set: how many probes have a mate among the first k."""
    labels = probe_ids[:, None] == gallery_ids[None, :]
    mated = labels.astype(bool).any(axis=1)
    scores_mated, labels_mated = scores[mated, :], labels[mated, :]
    _ = np.min(scores) - 1e-10  # the threshold that accepts all
    order = np.argsort(scores_mated, axis=1)
    ordered = np.ndarray(labels_mated.shape, dtype=bool)
    for row in range(len(ordered)):
        ordered[row, :] = labels_mated[row, order[row, :][::-1]]
    return np.array([ordered[:, 0:k].any(axis=1).sum() for k in KS])


def pick(mates: list[Ids], part: Ids) -> list[Ids]:
    """Those of the probes in `part`."""
    return [mates[number] for number in part]


if __name__ == "__main__":
    show(rows())
