"""Which of two trials is truly better: by the images that exactly one of them got right.

Networks judged on the same images mostly err on the same ones, so a comparison image by image tells far smaller
differences from chance than the two accuracies do.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from facenas.strategies.base import TrialResult


def better(first: TrialResult, second: TrialResult) -> float:
    """Probability (0..1) that `first` is truly better than `second`; `better(second, first)` is 1 less that.

    McNemar's exact test: is `first` right on more than half of the images that exactly one of them got right?
    It is 1 less the one-sided mid-p value, and the posterior probability when all shares are as likely before.
    Without the bits of both on as many images, their counts are compared as if they were of different images,
    which is less sure; without counts, the accuracies, as if they were exact (0, 0.5 or 1). A failed trial is
    worse than any that did not fail. Two trainings alike differ by their draws too: that is not counted.
    """
    if "failed" in (first.status, second.status):
        return (1 + (first.status == "ok") - (second.status == "ok")) / 2
    if _on_the_same_images(first, second):
        only_first, only_second = discordant(first, second)
        return _at_most(only_first, only_first + only_second + 1)
    if first.validated and second.validated:
        return _better_by_counts(first, second)
    return (1 + (first.accuracy > second.accuracy) - (first.accuracy < second.accuracy)) / 2


def evidence(first: TrialResult, second: TrialResult) -> str:
    """What `better` rests on, for people."""
    if "failed" in (first.status, second.status):
        return "failed"
    if _on_the_same_images(first, second):
        return "{} images won, {} lost".format(*discordant(first, second))
    told = first.validated and second.validated
    return "by accuracies alone" if told else "by accuracies alone, of images untold"


def discordant(first: TrialResult, second: TrialResult) -> tuple[int, int]:
    """How many images only `first` got right, and how many only `second`, of two trials with `right_bits`."""
    one, other = (int.from_bytes(bytes.fromhex(result.right_bits)) for result in (first, second))
    return (one & ~other).bit_count(), (other & ~one).bit_count()


def _on_the_same_images(first: TrialResult, second: TrialResult) -> bool:
    return bool(first.right_bits and second.right_bits and first.validated == second.validated)


def _at_most(heads: int, tosses: int) -> float:
    """Probability of at most `heads` heads; exact, so that every machine decides alike.

    With one toss more than discordant images, the tie at `heads` counts half: the mid-p value.
    """
    few = min(heads, tosses - heads - 1)
    total = ways = 1
    for number in range(1, few + 1):
        ways = ways * (tosses - number + 1) // number
        total += ways
    share = total / (1 << tosses)
    return share if few == heads else 1 - share


def _better_by_counts(first: TrialResult, second: TrialResult) -> float:
    """Difference of two independent shares, as normal; Agresti and Caffo's two images more for each of them."""
    shares = [(result.correct + 1) / (result.validated + 2) for result in (first, second)]
    variance = sum(
        share * (1 - share) / (result.validated + 2)
        for share, result in zip(shares, (first, second), strict=True)
    )
    return NormalDist().cdf((shares[0] - shares[1]) / math.sqrt(variance))
