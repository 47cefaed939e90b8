"""Measures every ONNX file beside this script with ONNX Runtime and writes latency.json.

    python bench.py --threads 1 --provider CPUExecutionProvider

Needs onnxruntime and numpy, and Python 3.8 or newer. Stop other programs first. `facenas search --latency`
takes latency.json: milliseconds for one image, medians over all rounds. A round goes through all files, so that
a slow minute, or a processor that has become hot, does not fall on some of them alone.
"""

# ruff: noqa: UP017, B905  (Python 3.8 has neither datetime.UTC nor a strict zip)

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import sys
import time
from typing import Any

import numpy
import onnxruntime

WARM_UP = 5  # runs, in each round
LEAST_SECONDS, MOST_RUNS = 0.02, 300  # of a file in each round, beyond --runs


def main() -> None:
    """Reads manifest.json, measures, and writes the same tree with what was measured."""
    options = read_options()
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "manifest.json"), "rb") as file:
        manifest = file.read()
    tree = json.loads(manifest.decode("utf-8"))
    entries = [tree["empty"], *tree["blocks"], *tree["networks"]]
    began = time.time()
    measure_all(entries, here, options)
    tree["target"] = describe(options, time.time() - began)
    tree["manifest_sha256"] = hashlib.sha256(manifest).hexdigest()
    write(tree, options.out)
    print(f"{options.out}: {len(entries)} files in {time.time() - began:.0f} seconds")


def read_options() -> argparse.Namespace:
    """Exits with a sentence when this ONNX Runtime has no such provider: it would take the CPU silently."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime within an operation")
    parser.add_argument("--provider", default="CPUExecutionProvider", help="of ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=3, help="through all files")
    parser.add_argument("--runs", type=int, default=20, help="of a file in each round, at least")
    parser.add_argument("--out", default="latency.json", help="the file to write")
    options = parser.parse_args()
    if min(options.threads, options.rounds, options.runs) < 1:
        parser.error("--threads, --rounds and --runs should be 1 or more")
    known = onnxruntime.get_available_providers()
    if options.provider not in known:
        parser.error(f"--provider {options.provider}: this onnxruntime has {', '.join(known)}")
    return options


def measure_all(entries: list[dict[str, Any]], folder: str, options: argparse.Namespace) -> None:
    """Adds `ms` and `spread_ms`, half of the runs lie within so much, to every entry."""
    times: list[list[float]] = [[] for _ in entries]
    count, shown = options.rounds * len(entries), 0.0
    for number in range(count):
        place = number % len(entries)
        times[place] += measure(os.path.join(folder, entries[place]["file"]), options)
        if time.time() - shown > 5 or number == count - 1:
            shown = time.time()
            print(f"{number + 1} of {count}", file=sys.stderr, flush=True)
    for entry, seconds in zip(entries, times):
        low, middle, high = numpy.percentile(seconds, [25, 50, 75]) * 1000
        entry["ms"], entry["spread_ms"] = round(float(middle), 6), round(float(high - low), 6)


def measure(path: str, options: argparse.Namespace) -> list[float]:
    """Seconds of single runs."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
    settings.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, settings, providers=[options.provider])
    if session.get_providers()[0] != options.provider:  # it fell back, and says so in its log alone
        sys.exit(f"bench.py: {options.provider} cannot be used here; see to its libraries, or take another one")
    draw = numpy.random.RandomState(0)
    feeds = {one.name: draw.standard_normal(one.shape).astype(numpy.float32) for one in session.get_inputs()}
    seconds: list[float] = []
    for _ in range(WARM_UP):
        session.run(None, feeds)
    while len(seconds) < options.runs or (len(seconds) < MOST_RUNS and sum(seconds) < LEAST_SECONDS):
        began = time.perf_counter()
        session.run(None, feeds)
        seconds.append(time.perf_counter() - began)
    return seconds


def describe(options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """What was measured on, and how."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "provider": options.provider,
        "threads": options.threads,
        "rounds": options.rounds,
        "runs": options.runs,
        "seconds": round(seconds, 1),
    }


def processor() -> str:
    """Its name; of boards such as a Raspberry Pi, the board's."""
    for path, key in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith(key):
                        return line.partition(":")[2].strip() if key else line.strip("\0\n ")
        except OSError:
            pass
    return platform.processor() or platform.machine()


def write(tree: dict[str, Any], out: str) -> None:
    """All or nothing."""
    with open(out + ".tmp", "w", encoding="utf-8") as file:
        json.dump(tree, file, indent=1)
        file.write("\n")
    os.replace(out + ".tmp", out)


if __name__ == "__main__":
    main()
