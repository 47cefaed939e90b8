"""The studies `random` and `operations`: by hand, and for real through the command line, one beside another."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from facenas import study
from facenas.errors import UserError
from facenas.runs import Run
from facenas.runs.presets import load_run_config
from facenas.spaces import Plain, PlainArchitecture
from facenas.strategies import NSGA2, RandomSearch
from facenas.studies import operations, random
from facenas.studies.networks import Final, Network, accuracies_of, final, found_by
from facenas.studies.random import Trained, check_comparable, improvement, random_networks

FACTS = {"in_channels": 1, "classes": 10, "image_size": 8, "fingerprint": "none"}
SMALL = [
    "data.data_fraction=0.1", "space.max_depth=4", "space.min_width=4", "space.max_width=6",
    "search.min_epochs=1", "search.depth_epoch_step=0", "search.width_epoch_step=0", "search.micro_epochs=1",
    "recipe.batch_size=16",
]  # fmt: skip


def network(name, width=4, depth=3):
    arch = PlainArchitecture.uniform(depth, width, 1, 10)
    return Network(name, arch, arch.count_macs(8), 50.0)


def test_relative_improvement_is_the_papers():
    assert improvement(95.91, 93.05) == pytest.approx(100 * (95.91 - 93.05) / 93.05)
    assert improvement(90.0, 90.0) == 0
    assert improvement(80.0, 90.0) < 0


def test_each_method_is_compared_with_the_mean_of_the_random_networks():
    drawn = [Trained("", network(f"random-{n}", 4 + n), [80.0 + n, 82.0 + n]) for n in range(4)]
    found = [Trained("macro_micro", network(f"search-{n}", 6), [85.0 + n]) for n in range(3)]
    found.append(Trained("trend", network("mine"), [82.0]))
    told = random.findings(drawn, found)
    json.dumps(told.to_json(), allow_nan=False)
    mean = np.mean([81, 82, 83, 84])
    assert told.values["random"]["mean"] == mean
    expected = [100 * (a - mean) / mean for a in (85, 86, 87)]
    assert told.values["methods"]["macro_micro"]["improvements"] == pytest.approx(expected)
    means = {row[0]: row for row in told.tables[0].rows}
    low, high = stats.t.interval(0.95, 2, loc=np.mean(expected), scale=stats.sem(expected))
    assert means["macro_micro"][4] == f"{np.mean(expected):.2f} ({low:.2f} to {high:.2f})"
    assert means["trend"][4] == f"{100 * (82 - mean) / mean:.2f}"
    assert means["random"][3].startswith(f"{np.mean([o.network.parameters for o in drawn]) / 1e6:.3f} ± ")
    assert [row[0] for row in told.tables[1].rows][:3] == ["search-2", "search-1", "search-0"]
    assert "above 0 in 3 of 3" in told.summary[1]
    assert "above 0 in 0 of 1" in told.summary[2]


def test_random_networks_are_those_of_the_strategy_and_keep_its_limits():
    config = load_run_config("demo-digits", ["seed=3"], {})
    space = config.build_space(FACTS)
    asked = RandomSearch(population=6, generations=1).bind(space, 3).ask()
    drawn = random_networks(config, FACTS, 6)
    assert [one.architecture for one in drawn] == [candidate.architecture for candidate in asked]
    limited = config.model_copy(
        update={"search": NSGA2(limits={"parameters": 6000}).settings, "space": Plain().settings}
    )
    assert all(one.parameters <= 6000 for one in random_networks(limited, FACTS, 4))


def test_the_gain_of_operations_is_paired_over_seeds():
    both = [(88.0, 87.0), (90.0, 89.5), (86.0, 86.3)]
    pairs = [
        operations.Pair(
            seed,
            {
                kind: operations.Found(network(kind, 4 + 2 * n), [value])
                for n, (kind, value) in enumerate(zip(operations.KINDS, values, strict=True))
            },
        )
        for seed, values in enumerate(both)
    ]
    told = operations.findings(pairs)
    json.dumps(told.to_json(), allow_nan=False)
    gains = [a - b for a, b in both]
    ends = stats.t.interval(0.95, 2, loc=np.mean(gains), scale=stats.sem(gains))
    assert told.values["gain"] == pytest.approx([np.mean(gains), *ends])
    assert told.tables[1].rows[0] == (
        "seed 0",
        "depth 3, width 4",
        *row_of(4),
        88.0,
        "depth 3, width 6",
        *row_of(6),
        87.0,
        1.0,
    )
    assert "2 of 3 seeds" in told.summary[1]
    assert "same network" not in " ".join(told.summary)


def row_of(width):
    return (PlainArchitecture.uniform(3, width, 1, 10).count_parameters(),)


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("random", ["study.against=[runs/none]"], "with these settings: against: runs/none is no run"),
        ("random", ["study.seeds=0"], "study random with these settings: .*seeds is 0 and against is empty"),
        ("operations", ["search.micro=false"], "take macro_micro, with micro: true"),
        ("operations", ["search={strategy: trend}"], "search.strategy trend searches no operations"),
    ],
)
def test_what_cannot_be_studied_is_said_before_anything_is_made(tmp_path, name, given, fault):
    with pytest.raises(UserError, match=fault):
        study(f"{name}-demo", settings=given, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_searches_of_other_images_or_spaces_are_not_compared():
    config, facts = load_run_config("demo-digits", [], {}), {"fingerprint": "digits"}
    other = Run(Path("runs/other"), config, {"data": {"fingerprint": "pictures"}})
    with pytest.raises(UserError, match="runs/other searched on other images"):
        check_comparable(other, config, facts)
    faces = Run(Path("runs/faces"), load_run_config("demo", [], {}), {"data": facts})
    with pytest.raises(UserError, match="searched a space of kind ir, not plain"):
        check_comparable(faces, config, facts)
    check_comparable(Run(Path("runs/same"), config, {"data": facts}), config, facts)


def test_faces_are_not_tested_by_a_study():
    with pytest.raises(UserError, match="needs images of classes"):
        final("final", load_run_config("demo", [], {}), [network("one")], Final())


def journal(folder):
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def last_epochs(folder):
    """Of each trial, the accuracy after its second epoch."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["accuracy"] for line in lines if line["epoch"] == 2]


def test_three_studies_for_real_share_their_trials_by_key(facenas, tmp_path):
    """Each takes what the ones before it have trained; the accuracy of each network is its last epoch's."""
    small = [part for setting in SMALL for part in ("--set", setting)] + ["--executor", "serial", "--json"]
    done = facenas("study", "repeat-demo", "--run", "seeds", "--seeds", "2", *small)
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs"
    values = json.loads(done.stdout)["values"]
    first = json.loads((runs / "seeds/search-1/best.json").read_text())
    assert values["architectures"][1] == first["architecture"]
    assert values["pairs"][0]["shared"] >= 1  # the start at least

    brief = ["--epochs", "2", "--set", "study.fraction=0.1", "--seeds", "1"]
    done = facenas("study", "operations-demo", "--run", "ops", *brief, *small, "--reuse", "runs/seeds")
    assert done.returncode == 0, done.stderr
    lines = {path.name: journal(path) for path in (runs / "ops").iterdir() if (path / "run.yaml").exists()}
    assert sorted(lines) == ["final", "with-0", "without-0"]
    assert all("reused" in line for line in lines["with-0"])
    assert "ops" not in {line["phase"] for line in lines["without-0"]}
    assert any("reused" in line for line in lines["without-0"])  # macro search is the same
    tested = last_epochs(runs / "ops/final")
    assert json.loads(done.stdout)["values"]["accuracies"] == {"with": [tested[0]], "without": [tested[1]]}

    given = ["--networks", "4", "--set", "study.repeats=2", "--set", "study.against=[runs/seeds/search-1]"]
    reuse = ["--reuse", "runs/seeds", "--reuse", "runs/ops"]
    done = facenas("study", "random-demo", "--run", "chance", *brief, *given, *small, *reuse)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)["values"]
    assert len(values["random"]["accuracies"]) == 4
    (found,) = values["methods"].values()
    assert len(found["improvements"]) == 2  # that of the run named, and its own search
    last, tested = journal(runs / "chance/final"), last_epochs(runs / "chance/final")
    assert [line["reason_proposed"] for line in last] == 2 * ["search-1", "search-0"]
    assert found["accuracies"] == pytest.approx(
        [np.mean([line["accuracy"] for line in last[n::2]]) for n in (0, 1)]
    )
    assert {line["data_fraction"] for line in last} == {0.1}
    from facenas.runs import open_run

    run = open_run(runs / "chance", "final")
    assert run.config.data.select_on == "test"
    networks = [SimpleNamespace(name="a"), SimpleNamespace(name="b")]
    assert accuracies_of(run, networks) == [tested[0::2], tested[1::2]]
    assert found_by(open_run(runs / "seeds", "search-1"), "b").parameters == found["parameters"][0]
    assert (runs / "chance/report.html").read_text().count("random-") >= 4
