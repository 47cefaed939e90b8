"""How to train a member of a front from scratch."""

from __future__ import annotations

import shlex
from itertools import pairwise

from facenas.report.reading import RunFolder

_FOLDER = "--runs-dir"


def pick_command(run: RunFolder, member: int) -> str:
    """Trains the network of this trial as a run of its own, in the folder of runs that the search was given."""
    name = run.path.resolve().name
    own = f"{name}-{member}"
    words = ["facenas", "train", name, "--pick", str(member), "--run", own]
    return shlex.join([*words, *_runs_dir(run.about.command or "")])


def _runs_dir(command: str) -> list[str]:
    """The option for the folder of runs as the search's own command has it, if it has."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    pairs = [[word, value] for word, value in pairwise(words) if word == _FOLDER]
    joined = [word.split("=", 1) for word in words if word.startswith(f"{_FOLDER}=")]
    return (pairs + joined or [[]])[-1]
