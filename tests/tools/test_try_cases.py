"""The table of odd inputs tells what each gave, and ends with 1 at a fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "try_cases.py"
GENERATOR = """
import sys
from pathlib import Path

for name in ("cats", "dogs"):
    folder = Path(sys.argv[1], "torn", name)
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"no image")
"""


def test_a_generator_of_one_case(tmp_path):
    (tmp_path / "classes.py").write_text(GENERATOR)
    command = [sys.executable, str(TOOL), "--cases", str(tmp_path), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, _, row, _, summary = done.stdout.splitlines()
    assert head == "| case | command | exit code | last line |"
    assert row.startswith("| classes/torn | `data info /classes/torn` | 2 | facenas: /classes/torn: ")
    assert summary == "1 cases, 0 faults"
    done = subprocess.run([*command, "nothing"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}: holds no such cases\n")
