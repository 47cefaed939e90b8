"""What the command line promises: one sentence for a mistake, one JSON object for a script, a quick --help."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
from conftest import small_search

from facenas.cli import main

COMMANDS = ("search", "resume", "train", "replay", "runs", "report")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(facenas, command):
    done = facenas(command, "--help")
    assert done.returncode == 0
    assert f"Example: facenas {command}" in done.stdout


def test_help_does_not_import_what_is_slow(facenas):
    code = (
        "import sys\nsys.argv = ['facenas', '--help']\nfrom facenas import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'plotly', 'yaml', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search", "--preset", "huge"], "preset huge: no such preset; there are"),
        (["search", "--preset", "none.yaml"], "none.yaml: cannot be read"),
        (["search", "--preset", "tiny", "--set", "search.speed=9"], "search.speed: is not a known"),
        (["search", "--preset", "tiny", "--set", "seed"], "write it as key=value"),
        (
            ["search", "--preset", "tiny", "--set", "space.max_depth=3"],
            "minimum is above its maximum",
        ),
        (["search", "--preset", "tiny", "--workers", "0"], "execution.workers"),
        (["search", "--preset", "tiny", "--executor", "cloud"], "execution.executor"),
        (["search", "--preset", "tiny", "--select-on", "train"], "data.select_on"),
        (["search", "--preset", "tiny", "--data", "imagenet"], "imagenet: unknown data set"),
        (["search", "--preset", "tiny", "--data", "no/such"], "no/such: no such file or folder"),
        (["search", "--preset", "tiny", "--data", "mnist"], "set data.root to another"),
        (["search", "--preset", "demo-digits", "--run", "a/b"], "a run's name is one folder name"),
        (
            ["search", "--preset", "demo-digits", "--set", "recipe.crop=32"],
            "recipe.crop 32: images",
        ),
        (["resume", "nothing"], "nothing: no such run in runs"),
        (["train", "nothing"], "nothing: no such run in runs"),
        (["train", "nothing.json"], "nothing.json: cannot be read"),
        (["train", "run", "--set", "seed=1"], "run: no such run in runs"),
        (["train", "ir18"], "needs a store of faces: import CASIA-WebFace"),
        (["train", "ir18", "--data", "casia.zarr"], "casia.zarr: there is no such store of faces"),
        (["train", "ir18", "--data", "."], "photographs become crops first: facenas align "),
        (
            ["train", "ir18", "--data", "digits"],
            "is a set of image classes, but the recipe is for faces",
        ),
        (["search", "--preset", "small"], "or try at once with the data called demo"),
        (["report", "nothing"], "nothing: no such run in runs"),
        (["replay", "nothing.json"], "nothing.json: cannot be read"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(facenas, tmp_path, arguments, sentence):
    done = facenas(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    *told, line = done.stderr.splitlines()
    assert all(text.startswith("digits: 10 classes; ") for text in told)  # what the set holds
    assert line.startswith("facenas: ")
    assert sentence in line
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_wrong_usage_is_exit_code_2(facenas):
    assert facenas("serach").returncode == 2
    assert facenas("search").returncode == 2


def test_debug_shows_the_traceback(facenas):
    done = facenas("--debug", "resume", "nothing")
    assert "Traceback" in done.stderr


def test_a_taken_name_is_refused_and_runs_dir_is_heeded(facenas, tmp_path):
    arguments = small_search("--run", "one", "--runs-dir", "elsewhere", "--executor", "serial")
    assert facenas(*arguments).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    done = facenas(*arguments)
    assert done.returncode == 2
    assert "exists already" in done.stderr

    rows = json.loads(facenas("runs", "--runs-dir", "elsewhere", "--json").stdout)["runs"]
    assert [(row["run"], row["state"], row["data"]) for row in rows] == [("one", "found", "digits")]
    assert "no runs in runs" in facenas("runs").stdout
    assert "one" in facenas("runs", "--runs-dir", "elsewhere").stdout
    done = facenas("train", "one", "--runs-dir", "elsewhere", "--epochs", "1", "--json")
    told = json.loads(done.stdout)
    assert told["epochs"] == 1
    (tmp_path / "elsewhere" / "one" / "report.html").unlink()
    told = json.loads(facenas("report", "one", "--runs-dir", "elsewhere", "--json").stdout)
    assert (tmp_path / told["report"]).is_file()
    rows = json.loads(facenas("runs", "--runs-dir", "elsewhere", "--json").stdout)["runs"]
    assert rows[0]["state"] == "trained"
    # A run can be named by its folder, from anywhere.
    assert facenas("resume", str(tmp_path / "elsewhere" / "one")).returncode == 0


def test_runs_as_csv_for_a_spreadsheet(facenas, tmp_path):
    columns = "run,created,data,state,trials,best_accuracy,parameters,test_accuracy"
    assert facenas("runs", "--csv").stdout == columns + "\n"
    strange = tmp_path / "runs" / "=1+1, x"
    strange.mkdir(parents=True)
    (strange / "run.yaml").write_text("config: {data: {name: digits}}\ndata: {fingerprint: f}\n")
    (strange / "trials.jsonl").write_text('{"accuracy": 61.25, "parameters": 1234}\n')
    (row,) = csv.DictReader(facenas("runs", "--csv").stdout.splitlines())
    assert row["run"] == "'=1+1, x"  # no formula
    assert (row["best_accuracy"], row["parameters"], row["test_accuracy"]) == ("61.25", "1234", "")
    assert facenas("runs", "--csv", "--json").returncode == 2


def test_select_on_test_says_so_in_the_report(facenas, tmp_path):
    arguments = ["--run", "theirs", "--select-on", "test", "--executor", "serial"]
    assert facenas(*small_search(*arguments)).returncode == 0
    first = json.loads((tmp_path / "runs" / "theirs" / "trials.jsonl").read_text().splitlines()[0])
    assert first["validated"] == 359  # the whole test set
    assert first["images"] == round(1438 * 0.4) or abs(first["images"] - 1438 * 0.4) < 6
    assert "test set" in (tmp_path / "runs" / "theirs" / "report.html").read_text()


def test_run_yaml_tells_what_is_needed_to_repeat_it(facenas, tmp_path):
    import yaml

    assert facenas(*small_search("--run", "r", "--executor", "serial", "--seed", "5")).returncode == 0
    about = yaml.safe_load((tmp_path / "runs" / "r" / "run.yaml").read_text())
    assert about["config"]["seed"] == 5
    assert about["command"].startswith("facenas search --preset demo-digits")
    assert len(about["data"]["fingerprint"]) == 64
    assert about["versions"].keys() >= {"facenas", "torch", "python", "numpy"}


def test_what_nobody_foresaw_is_told_in_one_sentence(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise errors.pop()

    monkeypatch.setattr("facenas.runs.list_runs", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    errors = [ValueError("deep inside\nand so on"), OSError(13, "Permission denied", "a.npy"), MemoryError()]
    told = [run_main(["runs", "--runs-dir=mine"], capsys) for _ in range(3)]
    assert told[0] == (1, "facenas: there is not enough memory for this\n")
    assert told[1] == (2, "facenas: a.npy: cannot be used (Permission denied)\n")
    assert told[2][0] == 2
    assert told[2][1].startswith("facenas: mine: cannot be worked with (ValueError: deep inside); if that is")
    errors = [ValueError(), ValueError()]
    code, sentence = run_main(["runs"], capsys)
    assert (code, sentence.count("\n")) == (1, 1)
    assert sentence.startswith("facenas: a fault of facenas (ValueError: ValueError); report it with what")
    with pytest.raises(ValueError, match=r"^$"):
        main(["--debug", "runs"])


def run_main(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, capsys.readouterr().err
