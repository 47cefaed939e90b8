"""Damaged files of every format are answered, or refused in a sentence; nothing half-written is left."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("onnxruntime")

from mutated import findings


@pytest.mark.skipif(sys.platform == "win32", reason="a command that takes too long is stopped by an alarm")
def test_damaged_files_are_told_in_sentences():
    found = [f"{name} {number}: {fault}" for name, number, fault in findings(300, [])]
    assert not found, "\n".join(found)
