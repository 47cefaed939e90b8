"""Networks of a list, trained alike."""

import json

import pytest

import facenas
from facenas.errors import UserError
from facenas.spaces import ImageFacts
from facenas.spaces.plain import Plain
from facenas.strategies import Listed, TrialResult

SPACE = Plain(min_depth=3, max_depth=6, min_width=4, max_width=8).bind(ImageFacts(1, 10, 28))
SMALL = {"architecture": SPACE.at(3, 4).to_json(), "name": "small"}
NETWORKS = [SMALL, {"architecture": SPACE.at(5, 8).to_json()}]


def test_each_is_trained_by_all_seeds_and_the_best_mean_is_found():
    listed = Listed(networks=NETWORKS, epochs=3, repeats=2).bind(SPACE, 0)
    asked = listed.ask()
    assert [(c.architecture.depth, c.budget.repeat) for c in asked] == [(3, 0), (5, 0), (3, 1), (5, 1)]
    for accuracy in (50.0, 80.0, 60.0, 20.0):
        listed.tell(TrialResult(accuracy=accuracy))
    found = listed.result()
    assert [n["accuracies"] for n in found["networks"]] == [[50.0, 60.0], [80.0, 20.0]]
    assert (found["architecture"]["depth"], found["accuracy"]) == (3, 55.0)


def test_a_network_of_another_space_is_refused():
    arch = facenas.spaces.IRArchitecture.uniform(8, (1, 1, 1, 1)).to_json()
    with pytest.raises(UserError, match="of kind ir"):
        Listed(networks=[{"architecture": arch}]).bind(SPACE, 0)


def test_repeats_and_protocols_train_otherwise_and_a_resume_trains_nothing_again(tmp_path):
    networks = [SMALL, SMALL | {"protocol": {"lr": 0.1}, "name": "faster"}]
    settings = {"data.data_fraction": 0.1, "data.select_on": "test"}
    given = {"strategy": Listed(networks=networks, epochs=2, repeats=2), "data": "digits", "settings": settings}
    found = facenas.search(space=Plain(min_depth=3, max_depth=6), run=tmp_path / "run", workers=1, **given)
    metrics = (found.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = {json.loads(line)["train_loss"] for line in metrics}
    assert len(losses) == 8, "four trainings of two epochs, all otherwise"
    with pytest.raises(UserError, match="no setting head"):
        facenas.search(
            space=Plain(),
            run=tmp_path / "no",
            data="digits",
            workers=1,
            strategy=Listed(networks=[SMALL | {"protocol": {"head.margin": 0.1}}]),
        )
