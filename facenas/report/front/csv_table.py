"""The front as CSV: what `front.csv` holds and the page offers to save."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from io import StringIO

from facenas.report.front.members import Member


def front_csv(front: Sequence[Member], objectives: Sequence[str]) -> str:
    """A line a member: trial, accuracy (percent), values of `objectives`, words, architecture as JSON."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "accuracy", *objectives, "words", "architecture"])
    for member in front:
        values = [_number(member.values[name]) for name in objectives]
        tree = json.dumps(member.architecture.to_json())
        writer.writerow(
            [member.id, _number(member.accuracy), *values, member.architecture.summary(), tree]
        )
    return text.getvalue()


def _number(value: float) -> float | int:
    """Counts without a point."""
    return int(value) if float(value).is_integer() else value
