"""Precomputed answers: one version or the other, never a mixture; here, since it shares the journal's databases."""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from flightdeck.contracts.artefact import ArtefactError
from flightdeck.contracts.layout import StateLayout
from pipelines.batch.precomputed import Overtaken, Precomputed, PrecomputedUnavailable, precomputed_url
from pipelines.batch.score import WrongHorizon, chunks, score_schedule
from pipelines.gates.measure import scores
from pipelines.registry.artefacts import opened

CHECKOUT = str(Path(__file__).parents[3])
SCRIPT = Path(__file__).with_name("schedule.py")
loaded = importlib.util.spec_from_file_location("schedule_of_trips", SCRIPT)
assert loaded and loaded.loader
trips = importlib.util.module_from_spec(loaded)
loaded.loader.exec_module(trips)
NOW, TOMORROW = trips.NOW, trips.TOMORROW
HOUR = dt.timedelta(hours=1)
IDS = [f"trip-{number}" for number in range(1000)]


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> StateLayout:
    return StateLayout(tmp_path_factory.mktemp("batch"))


@pytest.fixture(scope="module")
def first(layout):
    return trips.artefact(layout, "1")


@pytest.fixture(scope="module")
def second(layout):
    return trips.artefact(layout, "2")


@pytest.fixture
def answers(url) -> Precomputed:
    return Precomputed(url)


def scored(ref, layout, answers, rows: int = 1000, chunk: int = 300, **more):
    options = {"day": TOMORROW, "as_of": NOW, "join": trips.join} | more
    return score_schedule(ref, layout, answers, trips.schedule(rows, chunk), **options)


def found(answers: Precomputed, ids=IDS, now: dt.datetime = NOW, max_age: dt.timedelta = 24 * HOUR):
    return answers.lookup("trips", TOMORROW, ids, now, max_age=max_age)


def test_every_answer_is_the_models_own_on_the_same_features(layout, first, answers):
    done = scored(first, layout, answers)
    assert done.answers == 1000
    manifest, onnx = opened(layout.artefacts, first.sha256)
    whole = trips.join(layout, "trips_v1", next(trips.schedule(1000, 1000))).frame
    truth = dict(zip(IDS, scores(manifest, onnx, whole).tolist(), strict=True))
    got = found(answers)
    assert {name: answer.score for name, answer in got.answers.items()} == pytest.approx(truth, abs=1e-7)
    assert len({round(answer.score, 6) for answer in got.answers.values()}) > 50, "trips differ, so must their scores"
    assert {(it.version, it.sha256, it.as_of, it.horizon_min) for it in got.answers.values()} == {
        ("1", first.sha256, NOW, 600)
    }


def test_what_was_not_scored_is_missing_and_what_is_too_old_counts_as_none(layout, first, answers):
    assert found(answers, ["trip-1"]).missing == {"trip-1"}
    scored(first, layout, answers)
    got = found(answers, ["trip-1", "trip-5000"], now=NOW + 2 * HOUR, max_age=HOUR)
    assert (got.answers, got.missing, got.too_old) == ({}, {"trip-5000"}, {"trip-1"})
    assert answers.lookup("trips", TOMORROW + dt.timedelta(days=1), ["trip-1"], NOW, max_age=HOUR).missing


def test_a_run_under_way_is_seen_by_nobody_and_the_flip_is_whole(layout, first, second, answers):
    scored(first, layout, answers)
    seen = []
    scored(second, layout, answers, tell=lambda _: seen.append({it.version for it in found(answers).answers.values()}))
    assert seen == [{"1"}] * 4
    assert {it.version for it in found(answers).answers.values()} == {"2"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pass_killed_in_the_middle_leaves_the_old_answers_and_a_repeat_the_new_ones(
    layout, first, second, monkeypatch
):
    monkeypatch.delenv("FLIGHTDECK_PRECOMPUTED", raising=False)
    answers = Precomputed(precomputed_url(layout))
    scored(first, layout, answers)
    environment = os.environ | {"PYTHONPATH": CHECKOUT, "OMP_NUM_THREADS": "1"}  # threads wait on a busy machine
    argv = [sys.executable, str(SCRIPT), str(layout.root), "2", second.sha256]
    killed = subprocess.Popen([*argv, "100000"], stdout=subprocess.PIPE, text=True, env=environment)
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) >= 500:
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert {it.version for it in found(answers).answers.values()} == {"1"}
    assert len(found(answers).answers) == 1000
    subprocess.run([*argv, "1000"], check=True, capture_output=True, env=environment, timeout=200)
    got = found(answers)
    assert {it.version for it in got.answers.values()} == {"2"}
    assert len(got.answers) == 1000
    assert answers.rows() == 1000, "what the killed pass and the older version left is gone"


def test_an_older_scoring_never_replaces_a_newer_one(layout, first, second, answers):
    run = answers.begin(first, TOMORROW, NOW - HOUR)
    answers.write(run, ["trip-1"], [0.5], [600])
    scored(second, layout, answers)
    with pytest.raises(Overtaken, match="wrote 1 answers, 0 are there"):
        answers.finish(run, 1)
    late = answers.begin(first, TOMORROW, NOW - HOUR)
    answers.write(late, ["trip-1"], [0.5], [600])
    with pytest.raises(Overtaken, match="answers as of 2013-07-01T20:00"):
        answers.finish(late, 1)
    assert found(answers).answers["trip-1"].version == "2"


def test_a_run_that_lacks_answers_is_not_finished_and_a_finished_one_may_be_again(layout, first, answers):
    run = answers.begin(first, TOMORROW, NOW)
    answers.write(run, ["trip-1"], [0.5], [600])
    with pytest.raises(Overtaken, match="wrote 2 answers, 1 are there"):
        answers.finish(run, 2)
    assert found(answers, ["trip-1"]).missing
    answers.finish(run, 1)
    answers.finish(run, 1)
    assert found(answers, ["trip-1"]).answers["trip-1"].score == 0.5


def test_an_entity_that_is_in_the_schedule_twice_stops_the_pass(layout, first, answers):
    twice = (part for _ in range(2) for part in trips.schedule(10, 10))
    with pytest.raises(IntegrityError):
        score_schedule(first, layout, answers, twice, day=TOMORROW, as_of=NOW, join=trips.join)
    assert found(answers, ["trip-1"]).missing


def test_an_empty_schedule_is_a_days_answer_too(layout, first, second, answers):
    scored(first, layout, answers)
    assert scored(second, layout, answers, rows=0).answers == 0
    assert len(found(answers).missing) == 1000


@pytest.mark.parametrize(
    ("ask_at", "words"),
    [(NOW - HOUR, "should have been asked about before"), (NOW + HOUR, "a longer horizon is a spec of its own")],
)
def test_another_horizon_than_the_versions_own_is_refused(layout, first, answers, ask_at, words):
    with pytest.raises(WrongHorizon, match=words):
        score_schedule(
            first, layout, answers, trips.schedule(10, 10, ask_at=ask_at), day=TOMORROW, as_of=NOW, join=trips.join
        )
    assert found(answers, ["trip-1"]).missing


def test_a_longer_horizon_that_is_asked_for_is_told_with_each_answer(layout, first, answers):
    later = trips.schedule(10, 10, ask_at=NOW + HOUR)
    score_schedule(
        first, layout, answers, later, day=TOMORROW, as_of=NOW, join=trips.join, longest_horizon_min=660
    )  # fmt: skip
    assert found(answers, ["trip-1"]).answers["trip-1"].horizon_min == 660


def test_an_altered_artefact_is_not_run(tmp_path, answers):
    layout = StateLayout(tmp_path)
    ref = trips.artefact(layout, "3")
    (layout.artefacts / ref.sha256 / "model.onnx").write_bytes(b"another")
    with pytest.raises(ArtefactError):
        scored(ref, layout, answers)


def test_answers_that_are_away_say_where_without_the_password(tmp_path):
    with pytest.raises(ConnectionError) as raised:
        Precomputed("postgresql+psycopg2://ada:secret@127.0.0.1:1/answers")
    assert "secret" not in str(raised.value)
    (tmp_path / "broken.db").write_text("no database at all, but a text that is long enough" * 100)
    with pytest.raises(PrecomputedUnavailable, match=r"broken\.db"):
        Precomputed(f"sqlite:///{tmp_path / 'broken.db'}")


def test_chunks_smaller_than_the_number_of_threads_are_scored_too(layout, first, answers):
    scored(first, layout, answers, rows=7, chunk=3, threads=16)
    few = found(answers, IDS[:7]).answers
    scored(first, layout, answers, rows=7, chunk=7, threads=1)
    assert {name: it.score for name, it in few.items()} == {
        name: it.score for name, it in found(answers, IDS[:7]).answers.items()
    }


def test_a_frame_in_chunks_keeps_every_row_once():
    whole = next(trips.schedule(1000, 1000))
    parts = list(chunks(whole, 300))
    assert [part.height for part in parts] == [300, 300, 300, 100]
    assert np.concatenate([part["row_id"].to_numpy() for part in parts]).tolist() == list(range(1000))
