"""Inputs as people bring them, one command each, as a table: case, command, exit code, last line.

`python tools/try_cases.py [--cases ../shared/cases] [--data ../shared/data] [WORD ...]` has the generators
write their cases into a temporary folder, tries those whose name holds a WORD (else all), and ends with 1 when
one hangs, ends in a traceback or in another exit code than 0, 1 and 2.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SECONDS = 120  # that one command may take
SHARED = Path(__file__).parents[2] / "shared"


class Case(NamedTuple):
    """An input and the words of the command that reads it."""

    name: str
    words: list[str]


class Outcome(NamedTuple):
    """code: None when it took too long; fault: what no input may cause."""

    code: int | None
    last: str
    fault: bool


def write_cases(cases: Path, data: Path, out: Path) -> list[Case]:
    """All that the generators in `cases` write below `out`, with their commands."""
    found: list[Case] = []
    for name, more in (("classes", []), ("faces", [str(data)])):
        if (cases / f"{name}.py").is_file():
            command = [sys.executable, str(cases / f"{name}.py"), str(out / name), *more]
            (out / name).mkdir(parents=True)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found += [Case(f"classes/{path.name}", ["data", "info", str(path)]) for path in _below(out / "classes")]
    for path in _below(out / "faces"):
        if path.name == "bins":
            found += [_bench(out, one) for one in _below(path)]
        elif path.name in ("lists", "zips"):
            found += [_import(out, one) for one in _below(path) if one.is_file()]
        else:
            found.append(_import(out, path))
    return found


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _import(out: Path, path: Path) -> Case:
    words = ["data", "import", str(path), str(out / "store.zarr"), "--resize", "--overwrite"]
    return Case(path.relative_to(out).as_posix(), words)


def _bench(out: Path, path: Path) -> Case:
    words = ["eval", "--bench", "lfw", "--model", str(write_network(out)), "--data", str(path)]
    return Case(path.relative_to(out).as_posix(), [*words, "--out", str(out / "results")])


def write_network(out: Path) -> Path:
    """A small network of faces, not trained, as a checkpoint."""
    path = out / "network.pt"
    if not path.exists():
        import torch

        from facenas.spaces import IRArchitecture

        network = IRArchitecture.uniform(4, (1, 1, 1, 1), 16).build(0)
        torch.save({f"model.{key}": value for key, value in network.state_dict().items()}, path)
    return path


def try_case(case: Case, folder: Path) -> Outcome:
    """Runs the command in `folder`, with a cache of its own."""
    command = [sys.executable, "-m", "facenas.cli", *case.words]
    environment = {**os.environ, "FACENAS_CACHE": str(folder / "cache")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, f"took more than {SECONDS} seconds", True)
    said = [line for line in (done.stderr if done.returncode else done.stdout).splitlines() if line.strip()]
    wrong = "Traceback" in done.stderr or "fault of facenas" in done.stderr or done.returncode not in (0, 1, 2)
    return Outcome(done.returncode, said[-1] if said else "", wrong)


def rows(cases: list[Case], folder: Path) -> Iterator[tuple[str, bool]]:
    """Lines of the table, each with whether it tells of a fault."""
    yield "| case | command | exit code | last line |\n|---|---|---|---|", False
    for case in cases:
        outcome = try_case(case, folder)
        words = " ".join(word.replace(str(folder), "") for word in case.words)
        code = "none" if outcome.code is None else outcome.code
        mark = " **fault**" if outcome.fault else ""
        last = outcome.last.replace(str(folder), "").replace("|", "/")
        yield f"| {case.name} | `{words}` | {code}{mark} | {last} |", outcome.fault


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=SHARED / "cases")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        cases = write_cases(given.cases, given.data, Path(name))
        chosen = [case for case in cases if not given.words or any(word in case.name for word in given.words)]
        if not chosen:
            sys.exit(f"{given.cases}: holds no such cases")
        for line, fault in rows(chosen, Path(name)):
            print(line, flush=True)
            faults += fault
    print(f"\n{len(chosen)} cases, {faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
