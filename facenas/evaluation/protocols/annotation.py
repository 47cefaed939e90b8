"""Pair lists of rows `label path1 path2`, label 1 for one person and 0 for two, such as `lfw_ann.txt`.

Paths count from the folder of images, `<folder>/lfw_ann.txt` or beside it. Ten contiguous folds.
"""

from __future__ import annotations

from facenas.errors import UserError
from facenas.evaluation.protocols.files import plain_path
from facenas.evaluation.protocols.kinds import PairList, pair_list

FOLDS = 10


def is_annotation(text: str) -> bool:
    """Whether the text begins as such a list: its first row has a label and two paths."""
    words = text.lstrip().partition("\n")[0].split()
    return len(words) == 3 and words[0] in ("0", "1")


def parse_annotation(text: str, where: str) -> PairList:
    """The list in the file called `where`; raises UserError that names the line at fault."""
    named, same = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or words[0] not in ("0", "1"):
            raise UserError(
                f"{where}: line {number} is not `label path1 path2` with label 0 or 1: {line!r}"
            )
        same.append(words[0] == "1")
        named.append((plain_path(words[1]), plain_path(words[2])))
    return pair_list(named, same, FOLDS)
