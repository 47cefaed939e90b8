"""What a user installs: the wheel holds the presets and protocols, and finds them from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

from conftest import ROOT

from facenas.runs.presets import preset_names


def test_the_wheel_holds_what_it_needs_and_finds_it_from_anywhere(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("facenas-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert "facenas/eval_protocols/README.md" in names
    assert "facenas/configs/recipes/classification.yaml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]

    code = "import facenas.runs.presets as c; print(c.__file__); print(*c.preset_names())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")}, check=True,
    )  # fmt: skip
    where, found = done.stdout.splitlines()
    assert where.startswith(str(tmp_path / "installed"))
    assert found.split() == preset_names()


def test_the_console_script_answers():
    from facenas import __version__

    done = subprocess.run(
        [sys.executable, "-c", "from facenas.cli import main; main()", "--version"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"facenas {__version__}"
