"""Files on their way to nodes: what tells two apart, whole copies, and who removes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from facenas.data import DataConfig
from facenas.evaluation.embedders import InputOptions
from facenas.execution import FunctionEvaluator, SupernetPath, SupernetRef, TrainAlone, shipping
from facenas.execution.shipping import leave, look, pack, stamp, unpack
from facenas.training.recipes import Distill, Recipe
from facenas.training.teachers import Teacher


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "_PIECE", 7)  # bytes
    folder = tmp_path / "set.zarr"
    (folder / "c").mkdir(parents=True)
    (folder / "meta.json").write_text('{"fingerprint": 1}')
    (folder / "c" / "0").write_bytes(bytes(range(100)))
    (folder / "empty").touch()
    yield folder
    leave()


def test_a_copy_has_the_same_stamp_and_a_change_another(folder, tmp_path):
    key = stamp(folder)
    copy = unpack(pack(folder, key, lambda piece: piece), lambda piece: piece, tmp_path / "shipped")
    assert copy.name == "set.zarr"
    assert look({copy: key, folder: key, tmp_path / "none": key}) == {
        copy: "", folder: "", tmp_path / "none": "is missing",
    }  # fmt: skip
    (copy / "c" / "0").write_bytes(bytes(100))
    assert look({copy: key}) == {copy: "differs"}


def test_a_file_alone(folder, tmp_path):
    path = folder / "meta.json"
    copy = unpack(pack(path, stamp(path), lambda piece: piece), lambda piece: piece, tmp_path / "shipped")
    assert copy.read_text() == path.read_text()


def hold(parcel, root, ready, end):
    unpack(parcel, lambda piece: piece, root)
    ready.set()
    end.wait()


def test_what_nobody_holds_is_removed_and_a_killed_process_holds_nothing(folder, tmp_path):
    root, parcel = tmp_path / "shipped", pack(folder, stamp(folder), lambda piece: piece)
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(parcel, root, ready, end))
    other.start()
    assert ready.wait(10)
    copy = unpack(parcel, lambda piece: pytest.fail("it is there"), root)
    leave()
    assert copy.exists(), "the other process reads it"
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    small = pack(folder / "meta.json", stamp(folder / "meta.json"), lambda piece: piece)
    unpack(small, lambda piece: piece, root)
    assert not copy.exists()
    leave()
    assert [path.name for path in root.iterdir()] == [".lock"]


def test_evaluators_name_what_they_read_and_read_it_elsewhere():
    told = (DataConfig(), "", Recipe(), 0)
    alone = TrainAlone(Path("data"), *told)
    path = SupernetPath(Path("data"), *told, supernet=SupernetRef(Path("supernet.pt"), "", None, 1))
    assert [alone.files(), path.files()] == [(Path("data"),), (Path("data"), Path("supernet.pt"))]
    teacher = Teacher(Distill(teacher="run"), Path("model.pt"), InputOptions(), "", 8)
    taught = [
        replace(one, teacher=replace(teacher, kept=kept))
        for one in (alone, path)
        for kept in (None, Path("rows"))
    ]
    assert [one.files()[1] for one in taught] == [Path("model.pt"), Path("rows")] * 2
    for evaluator in (alone, path, *taught):
        elsewhere = tuple(Path("there", file) for file in evaluator.files())
        assert evaluator.reading(elsewhere).files() == elsewhere
        assert evaluator.files() != elsewhere
    assert FunctionEvaluator(len).reading(()).files() == ()
