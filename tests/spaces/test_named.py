"""Named networks: published counts, scaled variants, the command that lists and scales them."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from pydantic import ValidationError

from facenas.cli.models import list_models, models
from facenas.errors import UserError
from facenas.spaces import ImageFacts, from_json
from facenas.spaces.mobilefacenet import MobileFaceNet
from facenas.spaces.named import NAMED, REPRODUCES, at_macs, named

# Parameters of their authors' own modules, built and counted; multiply-accumulates in millions as published.
PUBLISHED = {
    "mobilefacenet": (1_003_136, 221),  # arXiv 1804.07573
    "mbf": (2_059_520, 438),  # arcface_torch says 0.45 G, which counts BatchNorm and PReLU as well
    "ghostfacenet_1.3_1": (4_059_748, 212),  # 215.7 with BatchNorm and activations
    "ghostfacenet_1.3_2": (4_037_836, 59),  # 60.3
    "edgeface_xxs": (1_244_744, 47),  # "94.72 MFLOPs": two a multiply-accumulate; so are the next
    "edgeface_xs": (1_770_492, 77),  # 154.00
    "edgeface_s": (3_652_520, 153),  # 306.12
}
LIGHT = list(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_the_literature(name):
    parameters, megas = PUBLISHED[name]
    assert NAMED[name].count_parameters() == parameters
    assert round(NAMED[name].count_macs(112) / 1e6) == megas


def test_the_table_lists_all_named_networks(capsys):
    rows = list_models()
    assert [row["name"] for row in rows] == list(NAMED)
    for row in json.loads(json.dumps(rows)):
        assert row["total"] == row["backbone"] + row["head"]
        assert row["macs"] == NAMED[row["name"]].count_macs(112)
        assert row["reproduces"] == REPRODUCES[row["name"]]
    models()
    shown = capsys.readouterr().out
    assert all(name[:9] in shown for name in NAMED)  # a narrow terminal breaks long names


@pytest.mark.parametrize("name", LIGHT)
def test_scaling_by_one_changes_nothing_and_more_costs_more(name):
    arch = NAMED[name]
    assert arch.scaled() == arch
    assert arch.scaled(embedding=64) == replace(arch, embedding=64)
    for larger in (arch.scaled(width=1.5), *([] if "ghost" in name else [arch.scaled(depth=1.5)])):
        assert larger.count_parameters() > arch.count_parameters()
        assert larger.count_macs(112) > arch.count_macs(112)
    assert 0 < arch.scaled(width=0.01).count_macs(112) < arch.count_macs(112) / 20


@pytest.mark.parametrize("name", [*LIGHT, "ir18"])
def test_a_network_of_equal_cost(name):
    found = at_macs(NAMED[name].scaled(embedding=128), 80e6)
    assert found.count_macs(112) == pytest.approx(80e6, rel=0.06)  # a channel more or less of ir18 is 18 %
    assert found.embedding == 128


def test_costs_out_of_reach_and_unknown_names_are_told():
    with pytest.raises(UserError, match="macs: 1,000 is not within reach"):
        at_macs(NAMED["mbf"], 1000)
    with pytest.raises(UserError, match="no network is called mobilnet; there are ir18"):
        named("mobilnet")


def test_one_is_scaled_and_written(tmp_path, capsys):
    out = tmp_path / "small.json"
    models("mobilefacenet", macs="80M", out=out, as_json=True)
    told = json.loads(capsys.readouterr().out)
    arch = from_json(json.loads(out.read_text()))
    assert told["architecture"] == arch.to_json()
    assert (told["parameters"], told["macs"]) == (arch.count_parameters(), arch.count_macs(112))
    assert arch.embedding == 128
    assert told["macs"] == pytest.approx(80e6, rel=0.03)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"macs": "80M"}, "of which network"),
        ({"name": "mbf", "width": 0}, "width 0: a multiplier"),
        ({"name": "mbf", "width": 1, "macs": "80M"}, "decides the width"),
        ({"name": "mbf", "macs": "many"}, "'many' is not a limit of macs"),
        ({"name": "ghostfacenet_1.3_1", "depth": 2}, "GhostFaceNets have one depth"),
    ],
)
def test_wrong_words_are_told_in_a_sentence(given, words):
    with pytest.raises(UserError, match=words):
        models(**given)


def test_a_space_of_scaled_variants():
    space = MobileFaceNet(network="mbf", width_multipliers=(1, 0.5), depth_multipliers=(1,), embedding=64)
    space = space.bind(ImageFacts(3, 0, 112))
    assert space.start() == NAMED["mbf"].scaled(width=0.5, embedding=64)
    assert {space.sample(random.Random(seed)) for seed in range(9)} == {
        NAMED["mbf"].scaled(width=width, embedding=64) for width in (1, 0.5)
    }
    with pytest.raises(UserError, match="not among the scaled variants"):
        space.encode(NAMED["mobilefacenet"])
    with pytest.raises(ValidationError, match="there is no mbg; there are mobilefacenet, mbf"):
        MobileFaceNet.Settings(network="mbg")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mobilefacenet", {"inner": 127}),
        ("mobilefacenet", {"width": 48}),
        ("mobilefacenet", {"blocks": [4, 6]}),
        ("mobilefacenet", {"blocks": [4, 6, 0]}),
        ("ghostfacenet_1.3_1", {"stem_stride": 4}),
        ("ghostfacenet_1.3_1", {"width": 0}),
        ("edgeface_s", {"channels": [48, 96, 160, 300]}),
        ("edgeface_xs", {"channels": [4, 64, 100, 192]}),
        ("edgeface_xs", {"rank": 1.5}),
    ],
)
def test_wrong_fields_are_told(name, change):
    with pytest.raises(UserError):
        from_json({**NAMED[name].to_json(), **change})
