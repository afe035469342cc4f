"""Which cluster a command works on."""

from __future__ import annotations

import pytest

from flightdeck.cluster.target import How, Refused, Target, choose, looks_like_production


@pytest.mark.parametrize("name", ["prod", "gke_acme_prod-eu", "arn:aws:eks:eu:1:cluster/production", "live", "PRD-1"])
def test_a_context_that_looks_like_production_is_refused_without_yes(name: str):
    with pytest.raises(Refused, match=r"nothing was touched.*--yes"):
        choose(name, answers=True, wanted=None, sure=False)
    assert choose(name, answers=True, wanted=None, sure=True) == Target(name, How.EXISTING)


@pytest.mark.parametrize("name", ["kind-flightdeck", "product-team", "reproduction", "olive", "delivery"])
def test_words_that_only_contain_such_letters_are_not_production(name: str):
    assert not looks_like_production(name)


def test_a_context_that_answers_is_used():
    assert choose("kind-mine", answers=True, wanted=None, sure=False) == Target("kind-mine", How.EXISTING)
    assert choose("kind-mine", answers=True, wanted="kind", sure=False) == Target("kind-mine", How.EXISTING)


@pytest.mark.parametrize(("current", "answers"), [(None, False), ("kind-gone", False), ("gke_acme_prod", False)])
def test_without_one_that_answers_a_kind_cluster_of_its_own_is_made(current: str | None, answers: bool):
    assert choose(current, answers=answers, wanted=None, sure=False) == Target("kind-flightdeck", How.KIND)


def test_minikube_is_made_when_it_is_asked_for_and_not_the_current_one():
    assert choose("kind-mine", answers=True, wanted="minikube", sure=False) == Target("minikube", How.MINIKUBE)
    assert choose("minikube", answers=True, wanted="minikube", sure=False).how is How.EXISTING
    assert Target("minikube", How.EXISTING).overlay == "minikube"


def test_another_kind_of_cluster_is_refused_with_what_there_is():
    with pytest.raises(Refused, match="kind or minikube"):
        choose(None, answers=False, wanted="k3d", sure=False)
