"""Python in copies of one process that has imported torch: each command a process of its own, 3 s sooner.

The one process reads lines of JSON from stdin and answers each: `{words, cwd, environment, stdout, stderr}`
(the last two: paths of files) by the process id of the copy, `{ended: id}` by its exit code or null.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import NoReturn

# What searches, trainings and their reports import; importing it starts no thread and draws nothing.
IMPORTED = (
    "torch._dynamo", "torch.distributed", "cv2", "jinja2", "plotly.graph_objects", "plotly.offline",
    "sklearn.datasets", "zarr", "facenas.api", "facenas.cli", "facenas.evaluation.benches",
    "facenas.execution", "facenas.report", "facenas.runs", "facenas.training.trainer",
)  # fmt: skip


class Command:
    """A copy that runs, as a `subprocess.Popen`."""

    def __init__(self, python: Python, order: dict) -> None:
        self._ask = python.ask
        self.pid = self._ask(order)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self.returncode is None:
            self.returncode = self._ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float = 240) -> int:
        """Its exit code; killed, and a `subprocess.TimeoutExpired`, after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return self.returncode

    def kill(self) -> None:
        """By signal 9."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Python:
    """An interpreter: what is said of `facenas` is that of the environment of the first command."""

    process: subprocess.Popen | None = None

    def ask(self, order: dict) -> int | None:
        """What the process that is copied answers."""
        if self.process is None:
            pipe, own = subprocess.PIPE, [sys.executable, __file__]
            self.process = subprocess.Popen(own, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        print(json.dumps(order), file=self.process.stdin)
        return json.loads(self.process.stdout.readline())

    def start(
        self, *words: str, cwd: Path, stdout: str = os.devnull, stderr: str = os.devnull, **environment: str
    ) -> Command:
        """`python WORDS` with an empty stdin; words: `-m MODULE ...`, `-c TEXT ...` or `FILE ...`."""
        order = {"words": words, "cwd": str(cwd), "environment": {**os.environ, **environment}}
        return Command(self, order | {"stdout": stdout, "stderr": stderr})

    def run(
        self, *words: str, cwd: Path, timeout: float = 280, **environment: str
    ) -> subprocess.CompletedProcess:
        """The same to its end, as `subprocess.run` with `capture_output` and `text`."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "stdout"), Path(folder, "stderr")
            copy = self.start(*words, cwd=cwd, stdout=str(out), stderr=str(err), **environment)
            code = copy.wait(timeout)
            return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())

    def close(self) -> None:
        """Ends the process that is copied."""
        if self.process:
            self.process.communicate()


def become(order: dict) -> int:
    """Runs what was ordered; gives the exit code."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    writing = os.O_WRONLY | os.O_CREAT
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (order["stdout"], writing), (order["stderr"], writing)]
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    try:
        run(order["words"], order["environment"].get("PYTHONPATH", "").split(":"))
    except SystemExit as ended:
        if not isinstance(ended.code, str):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run(words: list[str], path: list[str]) -> None:
    """As the interpreter does what it was started with; path: further folders of modules."""
    match words:
        case ["-m", module, *_]:
            sys.argv, sys.path[:1] = words[1:], [os.getcwd(), *path]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", text, *_]:
            sys.argv, sys.path[:1] = ["-c", *words[2:]], ["", *path]
            sys.modules["__main__"] = module = ModuleType("__main__")
            exec(compile(text, "<string>", "exec"), vars(module))
        case [file, *_]:
            sys.argv, sys.path[:1] = words, [str(Path(file).parent), *path]
            runpy.run_path(file, run_name="__main__")


def leave(code: int) -> NoReturn:
    """As the interpreter ends, without a second of tidying up what torch has imported."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Until stdin ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the garbage collector of every copy touches, and so copies, all that was imported
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "ended" in order:
            ended, status = os.waitpid(order["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif (answer := os.fork()) == 0:
            leave(become(order))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
