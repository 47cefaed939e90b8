"""The files of every bench, read: which images there are, and which are compared with which."""

from __future__ import annotations

from pathlib import Path

from facenas.data.images import open_files
from facenas.errors import UserError
from facenas.evaluation.benches import BenchFacts, bench_facts
from facenas.evaluation.protocols.annotation import is_annotation, parse_annotation
from facenas.evaluation.protocols.cfp import FIRST_FILE, read_cfp
from facenas.evaluation.protocols.files import read_text
from facenas.evaluation.protocols.finding import ListFile, find_list, find_place, open_list
from facenas.evaluation.protocols.images import EncodedImages, Images, TreeImages
from facenas.evaluation.protocols.insightface_bin import read_bin
from facenas.evaluation.protocols.kinds import (
    BenchNotThereError,
    PairList,
    PairProtocol,
    RankProtocol,
    with_images,
)
from facenas.evaluation.protocols.lfw import is_pairs_txt, parse_pairs_txt
from facenas.evaluation.protocols.tinyface import read_tinyface

__all__ = [
    "BenchNotThereError",
    "EncodedImages",
    "Images",
    "PairProtocol",
    "RankProtocol",
    "TreeImages",
    "read_pairs",
    "read_tinyface",
]


def read_pairs(bench: str, data: Path, pairs: Path | None = None) -> PairProtocol:
    """The pairs of a bench and their images.

    data: InsightFace's `.bin` file, a folder or .zip of aligned images, or a folder that holds one of these
    under a name of `bench_facts(bench).files`; pairs: the list of pairs (LFW's `pairs.txt`, rows of
    `label path1 path2`, or CFP's protocol folder or .zip), else looked for among the images and beside
    them. Raises BenchNotThereError when nothing of the bench is there, and UserError for any other fault.
    """
    facts = bench_facts(bench)
    if facts.kind != "pairs":
        raise UserError(f"--bench {bench}: compares no pairs of images")
    place = find_place(facts, data, with_bin=pairs is None)
    if place.suffix == ".bin":
        if pairs is not None:
            raise UserError(f"{place}: holds its own pairs; leave out {pairs}")
        return read_bin(place)
    images = open_files(place)
    found = open_list(pairs) if pairs is not None else find_list(facts, images)
    if found is None:
        raise BenchNotThereError(f"{data}: {_looked_for(facts)}")
    return with_images(_read_list(bench, found), images, found[1])


def _read_list(bench: str, found: ListFile) -> PairList:
    """The list in whichever of the three forms it has."""
    files, name = found
    if name.rpartition("/")[2] == FIRST_FILE:
        return read_cfp(bench, files, name[: -len(FIRST_FILE)])
    text, where = read_text(files, name), f"{files.root / name}"
    if is_pairs_txt(text):
        return parse_pairs_txt(text, where)
    if is_annotation(text):
        return parse_annotation(text, where)
    raise UserError(
        f"{where}: is no list of pairs: its first line is neither LFW's 10<TAB>300 nor `label path1 path2`"
    )


def _looked_for(facts: BenchFacts) -> str:
    return (
        f"has nothing of {facts.title}: looked for {', '.join(facts.files)} in it, and for "
        f"{', '.join(facts.lists)} in it and beside it; give the list of pairs by --pairs"
    )
