"""The list of images that a check of a store would leave out, as a person may have edited it."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from facenas.data.faces.store import FaceStore
from facenas.errors import UserError
from facenas.files import name_in_cell, read_csv

COLUMNS = ("image", "identity", "finding", "with", "score", "action", "store", "file")
DROP, KEEP = "drop", "keep"


def image_name(store: FaceStore, number: int) -> str:
    """What an image of a store is called: its identity and its number, as `ann/17`."""
    return f"{store.names[int(store.labels[number])]}/{number}"


def described(store: FaceStore, number: int) -> str:
    """The same for people: where the store knows it, with the image's file, as `ann/17 (ann/beach.jpg)`."""
    name = image_name(store, number)
    return name if store.files is None else f"{name} ({store.files[number]})"


def read_drops(path: Path, store: FaceStore) -> set[int]:
    """Numbers of the images that the CSV `path` says to drop from `store`: a row's `action` is drop.

    It needs the columns image, action and store; others are for people. A spreadsheet may have saved it with
    semicolons or tabs. Raises UserError, naming the line, for
    a list of another store, an image that the store has not, and an action that is neither drop nor keep.
    """
    dropped = set()
    (_, head), *lines = read_csv(path)
    missing = {"image", "action", "store"} - set(head)
    if missing:
        raise UserError(f"{path}: has no column {min(missing)}; give findings.csv of `facenas data check`")
    for line, cells in lines:
        row, where = dict(zip_longest(head, cells, fillvalue="")), f"{path}: line {line}"
        of, action = row["store"], row["action"].lower()
        if of != store.fingerprint:
            raise UserError(
                f"{where} is of another store than {store.path} (fingerprint {of[:12] or 'missing'}, not "
                f"{store.fingerprint[:12]}); check this store, and give its findings"
            )
        if action not in (DROP, KEEP):
            raise UserError(f"{where} has the action {action!r}; write {DROP} or {KEEP}")
        number = _number(name_in_cell(row["image"]), store)
        if number is None:
            raise UserError(f"{where} names the image {row['image']!r}, which {store.path} has not")
        if action == DROP:
            dropped.add(number)
    return dropped


def _number(name: str, store: FaceStore) -> int | None:
    digits = name.rpartition("/")[2]
    if not digits.isascii() or not digits.isdecimal() or int(digits) >= len(store):
        return None
    return int(digits) if image_name(store, int(digits)) == name else None
