"""A candidate that is ruined in one slice is found; small slices never hold a step up; nothing grows without bound."""

from __future__ import annotations

import msgspec
import numpy as np
import pydantic
import pytest

from flightdeck.contracts.artefact import ModelManifest
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.rollout import Judge, Margins, Slices
from services.rollout_operator.evidence import CANDIDATE, Collector
from services.rollout_operator.judge import judge, metrics_of
from services.rollout_operator.slices import GRAIN, OTHER
from services.rollout_operator.verdict import Judgement, MetricVerdict, Verdict
from tests.unit.rollout.test_evidence import PLAN, manifest, records

ORIGINS = ("EWR", "JFK", "LGA")


def settings(*by: str, warmup: int = 0, **more: object) -> Judge:
    margins = Margins(degraded_rate=0.05, score_shift=0.06, label_flips=0.05)
    slices = Slices(by=list(by or ("origin",)), **more)  # type: ignore[arg-type]
    return Judge(margins=margins, warmup=warmup, slices=slices)


def made_of(judge_settings: Judge, state: bytes | None = None) -> Collector:
    with_carrier = manifest().features[1].model_copy(update={"join_keys": ["carrier"], "name": "carrier_mean"})
    own = manifest().model_copy(update={"features": [*manifest().features, with_carrier]})
    made = Collector(judge_settings, PLAN, own, own, seed=1, state=state)
    if state is None:
        made.begin_step(0)
    return made


def origin(number: int) -> dict[str, str]:
    return {"origin": ORIGINS[number % 3]}


def only(value: str, bad: object, good: object):
    return lambda number: bad if origin(number)["origin"] == value else good


def said(made: Collector, step: int = 0) -> Judgement:
    return judge(made.judge, PLAN, step, made.evidence())


def of(found: Judgement, name: str) -> MetricVerdict:
    return next(item for item in found.metrics if item.metric == name)


def total(series: dict[int, dict[int, int]]) -> int:
    return sum(sum(histogram.values()) for histogram in series.values())


def test_a_candidate_that_is_ruined_in_one_slice_fails_and_the_slice_is_named():
    made = made_of(settings())
    keys = {"keys": lambda number: {"origin": "EWR" if number % 10 else "JFK"}}
    ruined = {"score": lambda number: 0.2 if number % 10 else 0.6}
    made.predictions(records(600, **keys), records(600, "candidate", **keys, **ruined))
    found = said(made)
    assert of(found, "scoreShift").verdict is not Verdict.FAIL  # 0.04 in the mean
    assert found.verdict is Verdict.FAIL
    assert found.reason.startswith("scoreShift by slice: origin=JFK 0.4, surely ")
    assert "margin 0.12, 60 compared" in found.reason


def test_a_slice_too_small_to_be_waited_for_can_fail_all_the_same():
    made = made_of(settings(min_share=0.2))
    keys = {"keys": lambda number: {"origin": "EWR" if number % 20 else "JFK"}}
    flips = {"decision": lambda number: "negative" if number % 20 else "positive"}
    made.predictions(records(600, **keys), records(600, "candidate", **keys, **flips))
    assert said(made).reason.startswith("labelFlips by slice: origin=JFK 1, surely")


def test_small_slices_hold_no_step_up_and_large_ones_do():
    keys = {"keys": lambda number: {"origin": "EWR" if number % 10 else "JFK"}}  # 30 of 300: not enough for a pass
    for min_share, verdict in ((0.11, Verdict.PASS), (0.1, Verdict.WATCHING)):
        made = made_of(settings(min_share=min_share))
        for first in (0, 300):  # the first answers teach the champion's median
            made.predictions(records(300, first=first, **keys), records(300, "candidate", first=first, **keys))
            if not first:
                made.evidence().slices.clear()
        assert of(said(made), "labelFlips by slice").verdict is verdict


def test_when_all_slices_are_small_there_is_none_to_wait_for():
    made = made_of(settings(min_share=0.9))
    for first in (0, 300):
        made.predictions(records(300, first=first, keys=origin), records(300, "candidate", first=first, keys=origin))
    assert said(made).verdict is Verdict.PASS


def test_answers_without_keys_are_no_data_and_one_side_that_tells_them_is_enough():
    made = made_of(settings())
    made.predictions(records(300), records(300, "candidate"))
    found = said(made)
    assert found.verdict is Verdict.NO_DATA
    assert "scoreShift by slice" in found.reason
    assert "no answer tells its origin" in of(found, "scoreShift by slice").sentence
    made.predictions(records(300, first=300), records(300, "candidate", first=300, keys=origin))
    assert of(said(made), "degradedRate by slice").verdict is Verdict.PASS


def test_a_key_that_no_answer_tells_is_no_data_however_well_the_other_one_looks():
    made = made_of(settings("origin", "carrier"))
    for first in (0, 300):
        made.predictions(records(300, first=first, keys=origin), records(300, "candidate", first=first, keys=origin))
    found = of(said(made), "labelFlips by slice")
    assert found.verdict is Verdict.NO_DATA
    assert "no answer tells its carrier" in found.sentence


def test_under_weight_a_slice_is_compared_with_itself():
    """Users ask about JFK at another hour than about EWR: scores differ by origin, and by nothing else."""
    made = made_of(settings())
    made.begin_step(1)
    score = only("JFK", 0.8, 0.1)
    for tick in range(30):
        made.predictions(
            records(90, first=1000 * tick, keys=origin, score=score),
            records(12, "candidate", first=1000 * tick + 500, keys=origin, score=score),
        )
    slices = made.evidence().slices["origin"]
    assert {value: it.pairs for value, it in slices.items()} == dict.fromkeys(("JFK", "EWR", "LGA"), 120)
    for it in slices.values():
        assert it.series["scoreShift/mean"] == {1: {200: 120}}  # every difference is 0


def test_under_weight_a_slice_whose_partner_is_not_there_waits_and_not_without_bound():
    made = made_of(settings())
    made.begin_step(1)
    for tick in range(40):
        made.predictions([], records(20, "candidate", first=20 * tick, keys=lambda _: {"origin": "JFK"}))
    assert len(msgspec.msgpack.decode(made.dump())["slices_waiting"]["origin=JFK"]) == 50
    made.predictions(records(10, first=5000, keys=lambda _: {"origin": "JFK"}), [])
    assert made.evidence().slices["origin"]["JFK"].pairs == 10


def test_values_beyond_the_bound_share_one_slice():
    made = made_of(settings(max_values=2))
    keys = {"keys": lambda number: {"origin": f"V{number}"}}
    made.predictions(records(500, **keys), records(500, "candidate", **keys))
    assert {value: it.pairs for value, it in made.evidence().slices["origin"].items()} == {"V0": 1, "V1": 1, OTHER: 498}


def test_many_rows_of_one_request_are_one_observation_of_each_slice():
    made = made_of(settings())
    rows = {"row": lambda number: number, "request_id": "r", "keys": origin}
    flips = {"decision": lambda number: "positive" if number < 3 else "negative"}
    made.predictions(records(30, **rows), records(30, "candidate", **rows, **flips))
    for it in made.evidence().slices["origin"].values():
        assert it.pairs == 1
        assert total(it.series["labelFlips"]) == 1


def test_outcomes_are_losses_of_their_slices_too():
    judge_settings = Judge(margins=Margins(label_loss=0.1), warmup=0, slices=Slices(by=["origin", "carrier"]))
    made = made_of(judge_settings)
    keys = {"keys": lambda number: {**origin(number), "carrier": "UA"}}
    made.predictions(records(300, **keys), records(300, "candidate", **keys, score=only("JFK", 0.9, 0.2)))
    made.outcomes({f"e{number}": 0.0 for number in range(300)})
    series = {value: it.series["labelLoss"] for value, it in made.evidence().slices["origin"].items()}
    assert {value: total(it) for value, it in series.items()} == dict.fromkeys(ORIGINS, 100)
    assert total(made.evidence().slices["carrier"]["UA"].series["labelLoss"]) == 300
    assert total(made.evidence().series["labelLoss"]) == 300
    found = of(said(made), "labelLoss by slice")
    assert (found.verdict, "origin=JFK 0.77" in found.sentence) == (Verdict.FAIL, True)


def test_under_weight_losses_are_of_two_flights_of_one_slice():
    made = made_of(Judge(margins=Margins(label_loss=0.1), warmup=0, slices=Slices(by=["origin"])))
    made.begin_step(1)
    made.predictions(records(90, keys=origin), records(30, "candidate", first=500, keys=origin))
    made.outcomes({f"e{number}": float(origin(number)["origin"] == "JFK") for number in range(600)})
    assert total(made.evidence().series["labelLoss"]) == 30
    for it in made.evidence().slices["origin"].values():
        assert it.series["labelLoss"] == {1: {200: 10}}  # both late or neither: a difference of 0


def test_a_key_that_no_feature_is_looked_up_by_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"judge.slices.by: 'origni' .* they have carrier, origin"):
        made_of(settings("origni"))


def feed(made: Collector, tick: int) -> None:
    rng, first = np.random.default_rng(tick), 60 * tick
    keys = {"keys": lambda number: {**origin(number), "carrier": f"C{number % 7}"}}
    champion = records(60, first=first, **keys, score=lambda _: float(rng.random()))
    made.begin_step(0 if tick < 6 else 1)
    made.predictions(champion, records(40, "candidate", first=first + 10, **keys, score=lambda _: float(rng.random())))


def test_a_collector_that_was_killed_counts_slices_exactly_as_if_it_was_not():
    wanted = settings("origin", "carrier", max_values=4)
    whole, part = made_of(wanted), made_of(wanted)
    for tick in range(12):
        feed(whole, tick)
        feed(part, tick)
        part = made_of(wanted, part.dump())
    assert whole.dump() == part.dump()
    assert set(whole.evidence().slices["carrier"]) == {"C3", "C4", "C5", "C6", OTHER}


def test_what_was_dumped_before_there_were_slices_is_gone_on_from():
    plain = Judge(margins=settings().margins, warmup=0)
    before = Collector(plain, PLAN, manifest(), manifest(), seed=1)
    before.begin_step(0)
    before.predictions(records(100), records(60, "candidate"))
    old = msgspec.msgpack.decode(before.dump())
    del old["slices_waiting"], old["evidence"]["slices"]
    for answer in old["waiting"]["champion"].values():
        del answer[7:]  # an answer had seven fields
    made = made_of(settings(), msgspec.msgpack.encode(old))
    made.predictions([], records(40, "candidate", first=60, keys=origin))
    assert made.evidence().tallies[0].pairs == 100
    assert sum(it.pairs for it in made.evidence().slices["origin"].values()) == 40


def test_a_record_of_an_older_release_has_no_keys():
    record = records(1)[0]
    shorter = msgspec.msgpack.encode(list(msgspec.msgpack.decode(msgspec.msgpack.encode(record)))[:-1])
    assert msgspec.msgpack.decode(shorter, type=PredictionRecord).keys == {}


def test_slices_stay_small_and_so_does_the_judgement():
    made, rng = made_of(settings("origin", "carrier", max_values=20)), np.random.default_rng(0)
    plain = made_of(settings().model_copy(update={"slices": None}))
    keys = {"keys": lambda number: {**origin(number), "carrier": f"C{number % 16}"}}
    scores = rng.random((2, 10_000))
    for first in range(0, 10_000, 500):
        for it in (made, plain):
            it.predictions(
                records(500, first=first, **keys, score=lambda number: float(scores[0, number])),
                records(500, "candidate", first=first, **keys, score=lambda number: float(scores[1, number])),
            )
    more = len(made.dump()) - len(plain.dump())
    assert more < 20_000  # 19 slices, differences of every size
    for it in made.evidence().slices["carrier"].values():
        assert all(slot % GRAIN == 0 for histogram in it.series["scoreShift/mean"].values() for slot in histogram)
    status = len(msgspec.json.encode(said(made))) - len(msgspec.json.encode(said(plain)))
    assert status < 3 * 450  # one verdict more for each sliced metric


def test_alpha_is_all_spent_and_no_more_whatever_the_traffic():
    wanted = settings("origin", "carrier", max_values=7)
    spent = 0.0
    for metric in metrics_of(wanted):
        tests = metric.components(PLAN)
        slices = 2 * (7 + 1)
        spent += tests * (metric.alpha(wanted, PLAN) + slices * metric.alpha_of_slice(wanted, PLAN))
    assert spent == pytest.approx(wanted.alpha)


def test_a_metric_that_fails_over_all_answers_does_not_tell_it_again_by_slice():
    made = made_of(settings())
    made.predictions(records(600, keys=origin), records(600, "candidate", keys=origin, decision="positive"))
    assert said(made).reason.count("labelFlips") == 1


def test_a_good_candidate_is_not_aborted_for_a_slice_more_often_than_alpha():
    """Every slice exactly at its margin is the worst of the good ones."""
    aborted, rounds = 0, 30
    for seed in range(rounds):
        rng, made = np.random.default_rng(seed), made_of(settings("carrier", max_values=8))
        for tick in range(12):
            keys = {"keys": lambda number: {"carrier": f"C{number % 8}"}}
            flips = {"decision": lambda _, rng=rng: "positive" if rng.random() < 0.1 else "negative"}
            made.predictions(
                records(80, first=80 * tick, **keys), records(80, "candidate", first=80 * tick, **keys, **flips)
            )
            if of(said(made), "labelFlips by slice").verdict is Verdict.FAIL:
                aborted += 1
                break
    assert aborted <= 2  # of 30 in the mean half a one: slices of labelFlips have a sixth of alpha


def test_the_candidate_of_a_slice_never_stands_in_for_the_champion():
    made = made_of(settings())
    made.begin_step(1)
    made.predictions([], records(30, "candidate", keys=origin))
    assert made.evidence().slices["origin"]["JFK"].pairs == 0
    assert made.evidence().tallies[1].degraded[CANDIDATE] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slices": {"by": ["origin", "origin"]}}, "each key once"),
        ({"slices": {"by": ["origin"], "marginFactor": 30}}, "which no slice can exceed"),
        ({"margins": {"errorRate": 0.02}, "slices": {"by": ["origin"]}}, "slices has no effect"),
    ],
)
def test_slices_that_could_have_no_effect_are_refused(changes: dict[str, object], words: str):
    with pytest.raises(pydantic.ValidationError, match=words):
        Judge.model_validate({"margins": {"labelFlips": 0.05}, **changes})


def test_the_manifest_of_either_release_may_know_the_key():
    assert isinstance(manifest(), ModelManifest)
    bare = manifest().model_copy(update={"features": manifest().features[:1]})
    Collector(settings("origin"), PLAN, bare, manifest(), seed=1)
    Collector(settings("origin"), PLAN, manifest(), bare, seed=1)
