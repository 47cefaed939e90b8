"""Runs the blocks in `steps.json` of the working directory, in order: real work, scaled down to seconds.

All in one process, python blocks in one namespace: importing torch for each command would take most of
the time. make, pip and venv are only looked at.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import traceback
from pathlib import Path
from unittest.mock import patch

import yaml

from facenas.spaces.named import NAMED

ROOT = Path(__file__).parent.parent
PAGE = os.environ["PAGE"]
HALVING = ["--set", "search.networks=2", "--set", "data.data_fraction=0.3"]
FACES, YUNET = os.environ["PAGE_FACES"], Path(os.environ["PAGE_YUNET"])


def scaled_down(words: list[str]) -> list[str]:
    """What is added to the words of a facenas command: small trainings by the serial executor."""
    from test_configs import scaled as scaled_preset
    from test_configs import scaled_down as scaled
    from test_configs import serial

    if words[0] == "search":
        preset = words[words.index("--preset") + 1]
        if preset.endswith(".yaml"):
            return serial(words)
        if "search.strategy=halving:Halving" in words:
            return [*HALVING, *serial(words)]
        return scaled(["facenas", *words], Path(FACES))
    if words[0] in ("study", "train"):
        return scaled(["facenas", *words], Path(FACES))
    if words[0] == "identify" and "--threshold" not in words:
        return ["--threshold", "0.3"]  # a gallery of few people has none of its own
    if words[0] == "export" and "--int8" in words and "--tolerance" not in words:
        return ["--tolerance", "15"]  # else layers are tried one by one, 40 s of work
    if words[:2] == ["latency", "export"]:
        return [*scaled_preset(words[2]), "--networks", "5", "--draws", "20"]
    if words[0] == "export" and "--int8" in words:
        return ["--tolerance", "5"]  # patterns are no faces
    if words[:2] == ["data", "demo"]:
        return ["--identities", "4", "--images", "2"]
    if words[0] == "align":
        here = YUNET.exists() and PAGE != "README.md"  # its crops are those of everybody, drawn
        return ["--detector", str(YUNET)] if here else ["--help"]
    return []


def run_command(words: list[str]) -> int:
    """One command of a sh block; gives its exit code."""
    match words:
        case ["facenas", *rest] if "ray" in rest:  # tests/execution/test_ray.py has a cluster
            return run_facenas([*rest, "--help"])
        case ["ray", "start" | "stop", *_] | ["kubectl", "logs", *_]:
            return 0
        case ["sbatch", script]:
            return run(["bash", "-n", script]) or parsed(Path(script).read_text())
        case ["kubectl", "apply", "-f", manifest]:
            return parsed(yaml.safe_load(Path(manifest).read_text())["spec"]["entrypoint"])
        case ["facenas", *rest]:
            large = (*NAMED, "small.json")
            if rest[0] == "train" and rest[1] in large and PAGE != "README.md":  # once is enough
                rest[1] = "tiny.json"
            return run_facenas([*rest, *scaled_down(rest)])
        case ["torchrun", "--nproc-per-node", _, "-m", "--", "facenas.cli", *rest]:
            few = ["train", "tiny.json", *rest[2:]]  # a smaller network, by two processes
            command = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "facenas.cli"]
            return run([sys.executable, "-m", *command, *few, *scaled_down(few)])
        case ["make", *rest]:
            return run(["make", "-n", "-C", str(ROOT), *rest])
        case ["python", tool, *_] if tool.startswith(("tools/", "examples/")):
            return 0 if (ROOT / tool).exists() else 1
        case ["python", "-m", "zipfile", *rest]:
            return run([sys.executable, "-m", "zipfile", *rest])
        case ["python", "bench/bench.py", *rest]:
            return run([sys.executable, "bench/bench.py", *rest, "--rounds", "1", "--runs", "3"])
        case ["python3", "-m", "venv", *_] | ["pip", "install", *_] | [".", _]:
            return 0
        case [".venv/bin/pre-commit", "install"]:
            return 0
    raise AssertionError(f"no test knows how to run: {shlex.join(words)}")


def parsed(script: str) -> int:
    """Whether there are such options as the facenas commands of a job have."""
    found = re.findall(r"(?:facenas |\")((?:search|resume) [^\"';\n]+)", script)
    return 0 if len(found) == 2 and not any(run_facenas([*shlex.split(c), "--help"]) for c in found) else 1


def run(command: list[str]) -> int:
    """In a process of its own."""
    return subprocess.run(command, check=False).returncode


def run_facenas(arguments: list[str]) -> int:
    """The console script in this process."""
    from facenas.cli import main

    with patch.object(sys, "argv", ["facenas", *arguments]):
        try:
            main()
        except SystemExit as done:
            return int(done.code or 0)
    return 0


def commands(text: str) -> list[list[str]]:
    """The words of every command: comments off, continued lines joined, `&&` taken apart."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split("&&")]
    # In place of a home, an object store and disks, what is here.
    here = {"~/": f"{Path.home()}/", "s3://": "memory://", "/mnt/": ""}
    for there, place in here.items():
        parts = [part.replace(there, place) for part in parts]
    found = [shlex.split(part, comments=True) for part in parts]
    return [words for words in found if words]


def shrink_calls() -> None:
    """`facenas.search` and `study` of a shipped preset, and `train`, small as on the command line."""
    from test_configs import FEW_OWN, scaled, scaled_study

    import facenas
    from facenas import api
    from facenas.runs.presets import preset_names

    search, study, train = api.search, api.study, api.train

    def small_search(preset=None, **given):
        if preset in preset_names():
            small = [word for word in scaled(preset) if word != "--set"]
            given["settings"] = [*small, *given.get("settings", ())]
            if preset == "demo":
                given.setdefault("data", FACES)
        return search(preset, **{"executor": "serial", **given})

    def small_train(target=None, **given):
        few = {} if target else {"settings": FEW_OWN}
        return train(target, **{**few, **given, "epochs": 1})

    def small_study(name, **given):
        return study(name, **{"executor": "serial", "settings": scaled_study(name), **given})

    facenas.search, facenas.study, facenas.train = small_search, small_study, small_train


def main() -> int:
    """The first step that fails ends it."""
    namespace = {"__name__": "__main__"}
    python = False
    for step in json.loads(Path("steps.json").read_text()):
        where = f"{PAGE}:{step['line']}"
        if step["title"]:
            Path(step["title"]).write_text(step["text"])
        elif step["language"] == "sh":
            for words in commands(step["text"]):
                told = f"-- {time.process_time():.0f} s, {where}: {shlex.join(words)}"
                print(told, file=sys.stderr, flush=True)
                if run_command(words):
                    return 1
        else:
            if not python:
                shrink_calls()
                python = True
            print(f"-- {where}", file=sys.stderr, flush=True)
            try:
                exec(compile("\n" * (step["line"] - 1) + step["text"], PAGE, "exec"), namespace)
            except Exception:
                traceback.print_exc()
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
