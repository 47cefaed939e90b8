"""The same search by every executor, and in parts: equal journals, and what each way takes.

    python tools/compare_executors.py [--preset demo-digits] [--search "--data NAME --set KEY=VALUE ..."]

In one process; in two worker processes; on two Ray nodes in network namespaces of this machine (as root; else
left out); and in two worker processes stopped three times by --max-hours, with operations and kernels added at
last by `resume --set micro=true`. Prints a Markdown table; exits with 1 when a journal differs from the first.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from try_ray_nodes import (
    ADDRESSES,
    HEAD,
    PORT,
    WORKER,
    inside,
    journal,
    make_namespaces,
    remove_namespaces,
    start_node,
    wait_for_head,
)

FACENAS = [sys.executable, "-m", "facenas.cli"]
FILES = ("trials.jsonl", "metrics.jsonl", "right.jsonl")
STOPS = 3


def main() -> None:
    """Searches, one way after the other, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="demo-digits")
    parser.add_argument("--search", default="", help="options of facenas search, for all ways alike")
    parser.add_argument("--folder", type=Path, help="for the runs; default: a temporary one")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="executors-"))).absolute()
    os.environ |= {"FACENAS_CACHE": str(folder / "cache"), "RAY_AUTH_MODE": "disabled"}
    search = ["search", "--preset", options.preset, *shlex.split(options.search)]
    # The images are decoded before the first clock starts.
    call(folder, [*search, "--run", "warm", "--executor", "serial", "--max-trials", "1"])

    seconds = {"serial": call(folder, [*search, "--run", "serial", "--executor", "serial"])}
    seconds["process"] = call(folder, [*search, "--run", "process", "--executor", "process", "--workers", "2"])
    seconds["parts"] = in_parts(folder, search, seconds["process"])
    if os.geteuid() == 0:
        seconds["ray"] = on_ray(folder, search)
    print("| way | wall clock | trials | journal equals the first |\n|---|---|---|---|")
    same = True
    for name, took in seconds.items():
        equal = all(
            journal(folder / "runs" / name, file) == journal(folder / "runs" / "serial", file) for file in FILES
        )
        same &= equal
        trials = len(journal(folder / "runs" / name))
        print(f"| {name} | {took:.0f} s | {trials} | {'yes' if equal else 'NO'} |")
    sys.exit(not same)


def in_parts(folder: Path, search: list[str], whole: float) -> float:
    """Without micro search and stopped by the clock, resumed until it ends, then extended by micro search."""
    limit = ["--max-hours", str(whole / 3600 / (STOPS + 3))]
    ways = ["--run", "parts", "--executor", "process", "--workers", "2", "--set", "micro=false", "--json"]
    took, result = measured(folder, [*search, *ways, *limit])
    stops = 0
    while not result["finished"]:
        stops += 1
        more, result = measured(folder, ["resume", "parts", "--json", *(limit if stops < STOPS else [])])
        took += more
    print(f"parts: stopped {stops} times, {result['trials']} trials", file=sys.stderr)
    more, result = measured(folder, ["resume", "parts", "--set", "micro=true", "--json"])
    print(f"parts: extended to {result['trials']} trials", file=sys.stderr)
    return took + more


def on_ray(folder: Path, search: list[str]) -> float:
    """On two nodes of one core each; the second does not see the images. Their start is not measured."""
    remove_namespaces()
    make_namespaces()
    try:
        start_node(HEAD, "--head", "--port", str(PORT), folder=folder)
        wait_for_head()
        start_node(WORKER, "--address", f"{ADDRESSES[HEAD]}:{PORT}", folder=folder)
        time.sleep(10)  # until it has joined
        ways = ["--run", "ray", "--executor", "ray", "--address", f"{ADDRESSES[HEAD]}:{PORT}"]
        return call(folder, [*search, *ways], inside(HEAD))
    finally:
        remove_namespaces()


def call(folder: Path, arguments: list[str], prefix: list[str] | None = None) -> float:
    """Runs `facenas` and gives its wall clock in seconds."""
    return measured(folder, [*arguments, "--json"], prefix)[0]


def measured(folder: Path, arguments: list[str], prefix: list[str] | None = None) -> tuple[float, dict]:
    """(wall clock in seconds, what it printed)."""
    started = time.perf_counter()
    done = subprocess.run(
        [*(prefix or []), *FACENAS, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
