"""Damaged files of every format are answered, or refused in a sentence; nothing half-written is left."""

from __future__ import annotations

import os
import sys

import pytest

pytest.importorskip("onnxruntime")

from mutated import Seeds, findings, limited, run_command


@pytest.mark.skipif(sys.platform == "win32", reason="a command that takes too long is stopped by an alarm")
def test_damaged_files_are_told_in_sentences():
    found = [f"{name} {number}: {fault}" for name, number, fault in findings(300, [])]
    assert not found, "\n".join(found)


@pytest.mark.skipif(sys.platform == "win32", reason="makes pipes")
def test_a_pipe_in_place_of_a_file_blocks_nobody(tmp_path):
    seeds = Seeds(tmp_path)
    plain = tmp_path / "runs/plain"
    told = dict(seeds.commands)
    told |= {name: (plain / name, ["report", str(plain)]) for name in ("trials.jsonl", "metrics.jsonl")}
    told["property"] = (tmp_path / "rec/property", seeds.commands["rec"][1])
    for name, (path, arguments) in told.items():
        whole = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        with limited(10):
            code, said = run_command(arguments)
        path.unlink()
        if whole is not None:
            path.write_bytes(whole)
        assert code == 2, f"{name}: {said}"
