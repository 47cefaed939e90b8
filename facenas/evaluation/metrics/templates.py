"""Templates: sets of face images that are one person's, compared as one (IJB-B and IJB-C, 1:1).

Same numbers as `mk-minchul/AdaFace:validation_mixed/insightface_ijb_helper/eval_helper.py` and
`deepinsight/insightface:recognition/_evaluation_/ijb/ijb_11.py`, which loop over templates and gather
both vectors of every pair. Here sums are products with a sparse matrix of ones, and all pairs are read
out of one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenas.evaluation.metrics.checks import Bools, Floats, as_floats
from facenas.evaluation.metrics.roc import tar_at_fars, tar_at_nearest_fars

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

_IMAGES_AT_ONCE = 16_384  # 32 MB of 512 float32
_PAIRS_AT_ONCE = 1 << 20
_PAIRS_GATHERED = 1 << 14  # 64 MB for each side, of 512 float64
_MATRIX = 1 << 28  # scores of all left templates with all right ones: 2 GB at most, IJB-C takes 0.55
_WASTE = 32  # a score out of the matrix product costs that much less than one gathered
_TABLE = 1 << 24


# What an image weighs in its template: see `pool_templates`.
# AdaFace reads the detector's scores and drops them. CVLface computes three settings (norm and score, norm
# only, score only) and its summary, `run_v1/evaluations/__init__.py`, takes the third.
FUSIONS: dict[str, dict[str, bool]] = {
    "adaface": {"keep_norm": True, "use_detector_score": False},
    "insightface": {"keep_norm": True, "use_detector_score": True},
    "cvlface": {"keep_norm": False, "use_detector_score": True},
}


@dataclass(frozen=True)
class Templates:
    """ids: (t,) int64, rising; vectors: (t, E) float64 of unit length (or zero, where all features were)."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float64]


@dataclass(frozen=True)
class TemplateVerification:
    """scores: (p,) float64 cosines; true accept rates (0..1) by false accept rate, 1e-6 to 1e-1.

    `tar_at_nearest_far` is what the peers print, `tar_at_far` what the name says: see `roc`.
    """

    scores: NDArray[np.float64]
    tar_at_far: dict[float, float]
    tar_at_nearest_far: dict[float, float]


def verify_templates(
    features: Floats,
    templates: NDArray[np.int64],
    media: NDArray[np.int64],
    pairs: NDArray[np.int64],
    same: Bools,
    *,
    detector_scores: Floats | None = None,
    keep_norm: bool = True,
    use_detector_score: bool = False,
) -> TemplateVerification:
    """IJB 1:1: pools the images of each template and compares the templates of each pair.

    features, templates, media, detector_scores: of the images, as for `pool_templates`; pairs: (p, 2)
    template ids; same: (p,) True for genuine pairs. The switches are AdaFace's unless given; other
    peers' are in `FUSIONS`. Raises ValueError as `pool_templates` and `score_pairs` do, and when a
    class of pairs is missing.

    >>> features = np.array([[1.0, 0], [3, 0], [0, 2], [2, 2]])
    >>> templates, media = np.array([7, 7, 8, 9]), np.array([1, 2, 3, 4])
    >>> found = verify_templates(
    ...     features, templates, media, np.array([[7, 9], [7, 8]]), np.array([True, False])
    ... )
    >>> found.scores.round(4).tolist(), found.tar_at_far[1e-4]
    ([0.7071, 0.0], 1.0)
    """
    if use_detector_score and detector_scores is None:
        raise ValueError("use_detector_score needs detector_scores; give them or leave it out")
    weights = detector_scores if use_detector_score else None
    pooled = pool_templates(features, templates, media, detector_scores=weights, keep_norm=keep_norm)
    return verify_pooled(pooled, pairs, same)


def verify_pooled(pooled: Templates, pairs: NDArray[np.int64], same: Bools) -> TemplateVerification:
    """`verify_templates` of templates that are pooled already.

    >>> pooled = Templates(np.array([7, 8, 9]), np.array([[1.0, 0], [0, 1], [0.6, 0.8]]))
    >>> verify_pooled(pooled, np.array([[7, 9], [7, 8]]), np.array([True, False])).scores.tolist()
    [0.6, 0.0]
    """
    if np.shape(same) != (len(pairs),):
        raise ValueError(f"{np.size(same)} labels for {len(pairs)} pairs of templates")
    scores = score_pairs(pooled, pairs)
    strict, nearest = tar_at_fars(scores, same, FARS), tar_at_nearest_fars(scores, same, FARS)
    return TemplateVerification(scores, strict, nearest)


def pool_templates(
    features: Floats,
    templates: NDArray[np.int64],
    media: NDArray[np.int64],
    *,
    detector_scores: Floats | None = None,
    keep_norm: bool = True,
) -> Templates:
    """One unit vector for each template: the mean of each medium's images, summed over its media.

    features: (n, E) float32 or float64, raw sums of the embeddings of image and mirror image, may be
    memory-mapped; templates, media: (n,) ids of the images (a video is one medium). keep_norm False
    brings every image to unit length first; detector_scores (n,) then multiply the images. Means and
    sums are of the dtype of `features` and added in the peers' order: equal to theirs to the last bit.
    Raises ValueError for no images, lengths that differ, and features that are not finite.

    >>> found = pool_templates(np.array([[2.0, 0], [0, 2], [5, 0]]), np.array([4, 4, 6]), np.array([1, 1, 2]))
    >>> found.ids.tolist(), found.vectors.round(4).tolist()
    ([4, 6], [[0.7071, 0.7071], [1.0, 0.0]])
    """
    features = as_floats(features)
    _check_images(features, templates, media, detector_scores)
    groups = _group(templates, media)
    vectors = np.empty((len(groups.ids), features.shape[1]))
    for first, last in _blocks(groups.first_image[groups.first_medium]):
        media_here = groups.first_medium[first : last + 1]
        bounds = groups.first_image[media_here[0] : media_here[-1] + 1]
        images = groups.order[bounds[0] : bounds[-1]]
        weights = None if detector_scores is None else detector_scores[images]
        rows = _weighed(features[images], weights, keep_norm)
        means = _sums(rows, bounds) / np.diff(bounds)[:, None].astype(rows.dtype)
        vectors[first:last] = _sums(means, media_here)
    _check_finite(vectors, features, groups)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    vectors /= np.where(norms > 0, norms, 1)[:, None]
    return Templates(groups.ids, vectors)


def score_pairs(pooled: Templates, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """(p,) float64 cosines of pairs (p, 2) of template ids.

    Raises ValueError when there are no pairs, or one names a template without images.

    >>> pooled = Templates(np.array([7, 8]), np.array([[1.0, 0], [0.6, 0.8]]))
    >>> score_pairs(pooled, np.array([[7, 8], [8, 8]])).tolist()
    [0.6, 1.0]
    """
    if not len(pairs):
        raise ValueError("there are no pairs of templates")
    (rows, left), (columns, right) = (_used(pooled, pairs[:, side]) for side in (0, 1))
    scores = np.empty(len(pairs))
    if len(rows) * len(columns) <= min(_MATRIX, _WASTE * len(pairs)):
        matrix = pooled.vectors[rows] @ pooled.vectors[columns].T
        for some in _slices(len(pairs), _PAIRS_AT_ONCE):
            scores[some] = matrix[left[some], right[some]]
    else:
        for some in _slices(len(pairs), _PAIRS_GATHERED):
            first = pooled.vectors[rows[left[some]]]
            scores[some] = (first * pooled.vectors[columns[right[some]]]).sum(1)
    return scores


def places_of(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) int64: where `wanted` (n,) stand in the rising `ids` (t,), t > 0; -1 for those that do not.

    >>> places_of(np.array([3, 5, 9]), np.array([9, 4, 3])).tolist()
    [2, -1, 0]
    """
    lowest, span = int(ids[0]), int(ids[-1]) - int(ids[0]) + 1
    if span <= _TABLE:  # 15 million ids in 0.1 s instead of 2
        table = np.full(span + 1, -1)
        table[ids - lowest] = np.arange(len(ids))
        return np.asarray(table[np.clip(wanted - lowest, -1, span)])
    found = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[found] == wanted, found, -1)


@dataclass(frozen=True)
class _Groups:
    """Images in the order of their templates, then of their media; the last entry of a `first_` is the end.

    order: (n,) images; first_image: (m + 1,) of each medium, in `order`; ids: (t,) rising template ids;
    first_medium: (t + 1,) of each template, in `first_image`.
    """

    order: NDArray[np.int64]
    first_image: NDArray[np.int64]
    ids: NDArray[np.int64]
    first_medium: NDArray[np.int64]


def _group(templates: NDArray[np.int64], media: NDArray[np.int64]) -> _Groups:
    order = np.lexsort((media, templates))
    of_template, of_medium = templates[order], media[order]
    new_template, new_medium = np.ones((2, len(order)), np.bool_)
    new_template[1:] = of_template[1:] != of_template[:-1]
    new_medium[1:] = new_template[1:] | (of_medium[1:] != of_medium[:-1])
    first_image = np.append(np.flatnonzero(new_medium), len(order))
    first_medium = np.append(new_medium.cumsum()[new_template] - 1, len(first_image) - 1)
    return _Groups(order, first_image, of_template[new_template].astype(np.int64), first_medium)


def _used(pooled: Templates, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The (k,) places in `pooled` that `wanted` (p,) names at all, and (p,) which of them each names."""
    places = places_of(pooled.ids, wanted)
    if places.min() < 0:
        pair = int(np.argmin(places))
        raise ValueError(f"pair {pair} names template {wanted[pair]}, which has no images")
    used = np.zeros(len(pooled.ids), np.bool_)
    used[places] = True
    return np.flatnonzero(used), (used.cumsum() - 1)[places]


def _weighed(rows: Floats, weights: Floats | None, keep_norm: bool) -> Floats:
    """(m, E) features of images, as they go into the means."""
    if not keep_norm:
        norms = np.sqrt((rows**2).sum(1, keepdims=True))
        rows = rows / np.where(norms > 0, norms, 1)
    return rows if weights is None else rows * weights[:, None].astype(rows.dtype)


def _sums(rows: Floats, bounds: NDArray[np.int64]) -> Floats:
    """(k, E): the sums of consecutive rows, the i-th of rows bounds[i]..bounds[i+1]-1 counted from bounds[0].

    A product with a sparse matrix of ones adds row to row in order, as a loop would, ten times faster
    than `np.add.reduceat`.
    """
    from scipy.sparse import csr_array

    ones = (np.ones(len(rows), rows.dtype), np.arange(len(rows)), bounds - bounds[0])
    return np.asarray(csr_array(ones, shape=(len(bounds) - 1, len(rows))) @ rows)


def _blocks(bounds: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of templates that together have few images; bounds: (t + 1,) their first images."""
    first = 0
    while first < len(bounds) - 1:
        end = np.searchsorted(bounds, bounds[first] + _IMAGES_AT_ONCE, side="right")
        last = max(first + 1, int(end) - 1)
        yield first, last
        first = last


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))


def _check_images(
    features: Floats,
    templates: NDArray[np.int64],
    media: NDArray[np.int64],
    detector_scores: Floats | None,
) -> None:
    if features.ndim != 2 or not len(features):
        raise ValueError(f"features of shape {features.shape}; they should be (images, numbers)")
    lengths = {"template ids": templates, "media ids": media, "detector scores": detector_scores}
    for what, array in lengths.items():
        if array is not None and array.shape != (len(features),):
            raise ValueError(f"{len(features)} images but {what} of shape {array.shape}")
    if detector_scores is not None and not np.isfinite(detector_scores).all():
        image = int(np.argmin(np.isfinite(detector_scores)))
        raise ValueError(f"the detector score of image {image} is not a finite number")


def _check_finite(vectors: NDArray[np.float64], features: Floats, groups: _Groups) -> None:
    """Sums carry what is not finite: all features are seen without another pass over them."""
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        template = int(np.argmin(finite))
        first, last = groups.first_image[groups.first_medium[template : template + 2]]
        images = groups.order[first:last]
        image = images[np.argmin(np.isfinite(features[images]).all(1))]
        raise ValueError(
            f"the features of image {image}, template {groups.ids[template]}, are not finite numbers"
        )
