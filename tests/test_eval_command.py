"""`facenas eval` on files in every bench's official form, with a small ONNX network whose output is known."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import ROOT
from typer.testing import CliRunner

sys.path.append(str(ROOT / "tests" / "evaluation"))

from bench_files import encoded, face, write
from ijb_folder import write_ijb
from onnx_files import summing

from facenas.cli.evaluate import eval as eval_command
from facenas.errors import UserError
from facenas.evaluation.benches import HQ

PEOPLE = 24
INPUT = ("--input-color", "rgb", "--mean", "127.5", "--std", "127.5")
app = typer.Typer()
app.command()(eval_command)


def picture(person: int, shot: int) -> bytes:
    """Shots of one person differ by noise, so that any network tells people apart."""
    noise = np.random.default_rng([person, shot]).normal(0, 6, (112, 112, 3))
    return encoded(np.clip(face(person) + noise, 0, 255).astype(np.uint8))


def bin_file(path: Path) -> Path:
    """InsightFace's file: every person with himself, and with the next."""
    images, same = [], []
    for person in range(PEOPLE):
        images += [picture(person, 0), picture(person, 1)]
        images += [picture(person, 0), picture((person + 1) % PEOPLE, 1)]
        same += [True, False]
    path.write_bytes(pickle.dumps((images, same)))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(summing(tmp_path_factory.mktemp("models") / "sum.onnx"))


@pytest.fixture
def run(tmp_path, model, monkeypatch):
    """Evaluates in this process; outputs go below `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def evaluated(bench: str, data: Path, *options: str) -> dict:
        command = ["--bench", bench, "--model", model, "--data", str(data), *INPUT, *options]
        done = CliRunner().invoke(app, [*command, "--json"])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return json.loads(done.stdout.splitlines()[-1])

    return evaluated


def test_a_bin_file_is_measured_and_told_in_files(run, tmp_path):
    result = run("cfp_fp", bin_file(tmp_path / "cfp_fp.bin"))
    assert (result["bench"], result["pairs"], result["flip"]) == ("cfp_fp", 2 * PEOPLE, True)
    assert result["accuracy"] > 0.9
    assert len(result["accuracies"]) == 10
    folder = tmp_path / "evaluations" / "sum-cfp_fp"
    assert json.loads((folder / "results.json").read_text()) == result
    page = (folder / "evaluation.html").read_text()
    assert "Celebrities in Frontal-Profile" in page
    assert f"{100 * result['accuracy']:.2f}" in page


def test_metrics_equal_a_plain_restatement(run, tmp_path, model):
    """From the raw files to the figures, with nothing of the package but the network's own weights."""
    from onnx_files import WEIGHTS
    from sklearn.metrics import roc_auc_score

    result = run("calfw", bin_file(tmp_path / "calfw.bin"))
    images, same = pickle.loads((tmp_path / "calfw.bin").read_bytes())
    from PIL import Image

    def embedding(data: bytes) -> np.ndarray:
        pixels = np.asarray(Image.open(__import__("io").BytesIO(data)), np.float64)
        values = ((pixels - 127.5) / 127.5).transpose(2, 0, 1)
        both = [np.tensordot(WEIGHTS, v, 3) for v in (values, values[:, :, ::-1])]
        return sum(both) / np.linalg.norm(sum(both))

    vectors = [embedding(data) for data in images]
    distances = np.array([((a - b) ** 2).sum() for a, b in zip(vectors[::2], vectors[1::2], strict=True)])
    same = np.array(same)
    assert result["auc"] == pytest.approx(roc_auc_score(same, -distances), abs=1e-6)
    accuracies = []
    for fold in np.array_split(np.arange(len(same)), 10):
        train = np.setdiff1d(np.arange(len(same)), fold)
        tried = [np.mean((distances[train] < t) == same[train]) for t in np.arange(0, 4, 0.01)]
        threshold = np.arange(0, 4, 0.01)[int(np.argmax(tried))]
        accuracies.append(np.mean((distances[fold] < threshold) == same[fold]))
    assert result["accuracies"] == pytest.approx(accuracies)


def test_hq_measures_what_is_there_and_says_what_is_not(run, tmp_path):
    for bench in HQ[:3]:
        bin_file(tmp_path / f"{bench}.bin")
    result = run("hq", tmp_path)
    assert list(result["benches"]) == list(HQ[:3])
    assert list(result["missing"]) == ["calfw", "cplfw"]
    assert result["accuracy"] is None
    for bench in HQ[3:]:
        bin_file(tmp_path / f"{bench}.bin")
    result = run("hq", tmp_path)
    mean = np.mean([result["benches"][bench]["accuracy"] for bench in HQ])
    assert result["accuracy"] == pytest.approx(mean)
    assert not result["missing"]


def test_ijb_gives_both_rates_by_far_and_1n(run, tmp_path):
    write_ijb(tmp_path / "IJBC")
    result = run("ijbc", tmp_path)
    assert result["pairs"] == 5
    for key in ("tar_at_far", "tar_at_nearest_far"):
        assert [float(far) for far in result[key]] == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert {"rank_1", "rank_5", "rank_10", "tpir_at_fpir", "merged"} <= result.keys()
    weighed = run("ijbc", tmp_path, "--fusion", "insightface")
    assert (weighed["keep_norm"], weighed["use_detector_score"]) == (True, True)
    bare = run("ijbc", tmp_path, "--no-keep-norm")
    assert (bare["keep_norm"], bare["use_detector_score"]) == (False, False)


def test_tinyface_gives_ranks(run, tmp_path):
    parts = {"Probe": ("1_2", "2_2"), "Gallery_Match": ("1_1", "2_1"), "Gallery_Distractor": ("7",)}
    for part, names in parts.items():
        for name in names:
            person = int(name.split("_")[0])
            small = tmp_path / "tinyface" / "Testing_Set" / part / f"{name}.jpg"
            write(small.parent, {small.name: encoded(face(person, 20))})
            write(
                tmp_path / "aligned_pad_0.1_pad_high" / part,
                {f"{name}.jpg": picture(person, len(name))},
            )
    result = run("tinyface", tmp_path)
    assert (result["probes"], result["gallery"]) == (2, 3)
    assert (result["rank_1"], result["rank_20"], result["map"]) == (1.0, 1.0, 1.0)


def test_a_second_evaluation_does_not_run_the_network(run, tmp_path, monkeypatch):
    data = bin_file(tmp_path / "cplfw.bin")
    first = run("cplfw", data)
    from facenas.evaluation.embedders.embedder import Embedder

    def refused(self, images, mirrored):
        raise AssertionError("the network ran")

    monkeypatch.setattr(Embedder, "begin", refused)
    assert run("cplfw", data) == first


FAULTS = {
    "unknown bench": ("lfv", "lfw.bin", (), "bench lfv: is unknown"),
    "unknown fusion": ("ijbc", "", ("--fusion", "sum"), "bench ijbc: fusion: .*'adaface'"),
    "nothing there": ("lfw", "", (), "has nothing of Labeled Faces in the Wild"),
    "pairs of ijb": ("ijbc", "", ("--pairs", "pairs.txt"), "bench ijbc: has no setting pairs"),
    "pairs of hq": ("hq", "", ("--pairs", "pairs.txt"), "--pairs: hq is five benches"),
    "one class": ("lfw", "genuine.bin", (), "all 10 pairs are genuine"),
    "precision of onnx": ("lfw", "genuine.bin", ("--precision", "bf16"), "in the precision it was exported in"),
    "no precision": ("lfw", "genuine.bin", ("--precision", "fp8"), "precision fp8: should be fp32 or bf16"),
    "out is a file": (
        "lfw",
        "",
        ("--out", "genuine.bin"),
        r"genuine\.bin: cannot be written \(Not a directory\); choose",
    ),
    "no numbers": ("lfw", "genuine.bin", ("--std", "0,x"), "--std 0,x: should be one number"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_gets_one_sentence_and_leaves_nothing(run, tmp_path, fault):
    bench, name, options, sentence = FAULTS[fault]
    items = [picture(person, 0) for person in range(20)]
    (tmp_path / "genuine.bin").write_bytes(pickle.dumps((items, [True] * 10)))
    write_ijb(tmp_path / "IJBC")
    with pytest.raises(UserError, match=sentence) as caught:
        run(bench, tmp_path / name, *options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evaluations").exists()


def test_nan_embeddings_are_told(run, tmp_path):
    broken = summing(tmp_path / "nan.onnx", before=[("Mul", np.float32("nan"))])
    with pytest.raises(UserError, match="not finite"):
        run("lfw", bin_file(tmp_path / "lfw.bin"), "--model", str(broken))


def test_a_bench_of_ones_own_is_a_yaml_file(run, tmp_path):
    folder = write(tmp_path / "mine", {f"{p}/{s}.jpg": picture(p, s) for p in range(20) for s in (0, 1)})
    rows = [f"{p}/0.jpg {(p + k) % 20}/1.jpg {1 - k}" for p in range(20) for k in (0, 1)]
    (folder / "list.txt").write_text("\n".join(rows))
    (folder / "office.yaml").write_text("title: My office\npairs: list.txt\nfolds: 4\n")
    result = run(str(folder / "office.yaml"), folder)
    assert (result["bench"], result["pairs"], len(result["accuracies"])) == ("office", 40, 4)
    assert result["accuracy"] > 0.9
    assert "My office" in (tmp_path / "evaluations/sum-office/evaluation.html").read_text()


def test_the_command_prints_json_alone_or_a_table(facenas, tmp_path, model):
    data = bin_file(tmp_path / "lfw.bin")
    command = ["eval", "--bench", "lfw", "--model", model, "--data", str(data), "--no-flip"]
    options = ["--input-color", "rgb", "--mean", "127.5", "--std", "127.5,127.5,127.5"]
    done = facenas(*command, *options, "--json")
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert (result["bench"], result["flip"]) == ("lfw", False)
    (told,) = done.stderr.splitlines()
    assert "where the official bench has 6,000" in told
    table = facenas(*command, *options).stdout
    assert "lfw" in table
    assert f"{100 * result['accuracy']:.2f}" in table
    done = facenas(*command, "--std", "0,5")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
