"""Pair lists in the form of LFW's View 2, `pairs.txt`.

First line `10<TAB>300`; then for every fold 300 lines `name<TAB>i<TAB>j` (one person) and 300 lines
`name<TAB>i<TAB>other<TAB>j`. Image i of a person is `name/name_000i.jpg`.
"""

from __future__ import annotations

from facenas.errors import UserError
from facenas.evaluation.protocols.kinds import PairList, pair_list


def is_pairs_txt(text: str) -> bool:
    """Whether the text begins as such a list: two numbers alone in its first line."""
    words = text.partition("\n")[0].split()
    return len(words) == 2 and all(word.isdecimal() for word in words)


def parse_pairs_txt(text: str, where: str) -> PairList:
    """The list in the file called `where`; raises UserError that names the line at fault."""
    lines = [line.rstrip() for line in text.splitlines()]
    folds, each = (int(number) for number in lines[0].split())
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if line]
    if len(rows) != 2 * folds * each or folds < 2:
        raise UserError(
            f"{where}: has {len(rows)} pairs, but its first line says {2 * folds * each} in {folds} folds"
        )
    words = [_words(where, number, line) for number, line in rows]
    named = [(_path(name, i), _path(other, j)) for name, i, other, j, _ in words]
    return pair_list(named, [same for *_, same in words], folds)


def _words(where: str, number: int, line: str) -> tuple[str, int, str, int, bool]:
    words = line.split("\t") if "\t" in line else line.split()
    try:
        if len(words) == 3:
            return words[0], int(words[1]), words[0], int(words[2]), True
        name, i, other, j = words
        return name, int(i), other, int(j), False
    except ValueError:
        raise UserError(f"{where}: line {number} is not a pair: {line!r}") from None


def _path(name: str, number: int) -> str:
    return f"{name}/{name}_{number:04d}.jpg"
