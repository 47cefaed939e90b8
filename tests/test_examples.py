"""Every example runs as it stands: as a script, and as the cell of a notebook, which is no file."""

from __future__ import annotations

import pytest
from conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def arguments(faces, tmp_path):
    """By example: the faces of the tests as a folder, instead of 2,880 that are drawn for half a minute."""
    from test_configs import unpack

    def build(name: str) -> list[str]:
        if not name.startswith("05"):
            return []
        unpack(faces, tmp_path / "people")
        return ["people"]

    return build


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_as_a_cell(python, example, arguments, tmp_path):
    source = example.read_text()
    assert len(source.splitlines()) <= 100
    done = python.run("-c", source, *arguments(example.name), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_one_runs_as_a_script(python, tmp_path):
    done = python.run(str(EXAMPLES[2]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_no_example_is_longer_than_a_screen_or_two():
    for example in EXAMPLES:
        lines = [line for line in example.read_text().splitlines() if line.strip()]
        assert len(lines) <= 60, example.name
