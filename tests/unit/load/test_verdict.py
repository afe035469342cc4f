from __future__ import annotations

import re

from flightdeck.lab.users import Outcome
from flightdeck.load.page import plot, render
from flightdeck.load.plan import Limits, LoadPlan
from flightdeck.load.verdict import LoadVerdict, judge, realised_rate, words


def plan(**limits: object) -> LoadPlan:
    return LoadPlan("http://127.0.0.1:1", 10.0, 10.0, "r", "o", Limits(**limits))  # type: ignore[arg-type]


def outcomes(count: int = 100, *, latency_ms: float = 5.0, late_ms: float = 0.0, status: int = 200) -> list[Outcome]:
    """One every 100 ms; latency from the intended start."""
    return [
        Outcome(0, "e", 5 + n / 10, 5 + n / 10 + late_ms / 1e3, 5 + n / 10 + latency_ms / 1e3, status, 0.5, [], "")
        for n in range(count)
    ]


def missed(verdict: LoadVerdict) -> set[str]:
    return {it.name for it in verdict.findings if not it.ok}


def test_all_well():
    verdict = judge(plan(), outcomes())
    assert verdict.ok and not verdict.notes
    assert [it.found for it in verdict.findings] == ["5.0 ms", "5.0 ms", "0 of 100", "10.0/s"]


def test_a_slow_tail_misses_the_p99_only():
    assert missed(judge(plan(), outcomes(98) + outcomes(2, latency_ms=900))) == {"p99"}


def test_a_slow_server_is_slow_though_each_answer_came_fast_after_sending():
    verdict = judge(plan(), outcomes(latency_ms=905, late_ms=900))
    assert {"p50", "p99"} <= missed(verdict)
    assert any("after their intended start" in note for note in verdict.notes)


def test_a_failure_is_counted_and_said():
    failed = [Outcome(0, "e", 5, 5, 5, 503, None, [], "nobody"), Outcome(0, "e", 5, 5, 5, 0, None, [], "reset")]
    verdict = judge(plan(), outcomes(98) + failed)
    assert missed(verdict) == {"failed requests"}
    assert "1 times: 503 nobody" in verdict.notes and "1 times: no answer reset" in verdict.notes
    assert judge(plan(failed=2), outcomes(98) + failed).ok


def test_what_was_never_answered_has_failed():
    verdict = judge(plan(), outcomes(60))
    assert missed(verdict) == {"failed requests", "realised rate"}
    assert verdict.findings[2].found == "40 of 100"


def test_without_any_answer_no_latency_is_good():
    assert missed(judge(plan(), [])) == {"p50", "p99", "failed requests", "realised rate"}
    assert missed(judge(plan(failed=100), outcomes(status=500))) == {"p50", "p99"}


def test_users_who_fall_behind_do_not_realise_the_rate():
    slow = [
        Outcome(0, "e", 5 + n / 10, 5 + n / 5, 5 + n / 5, 200, 0.5, [], "") for n in range(100)
    ]  # sent every 200 ms
    assert abs(realised_rate(plan(), slow) - 5) < 0.01


def test_degraded_answers_are_no_failures_and_are_said():
    some = [Outcome(0, "e", 5, 5, 5.001, 200, 0.5, ["weather: stale 9 s > 8 s"], "")]
    verdict = judge(plan(), outcomes(99) + some)
    assert verdict.ok and verdict.notes == ["1 of 100 answers were degraded: weather: stale"]
    assert "degraded" in words(verdict)


def test_the_page_is_whole_and_points_nowhere():
    own = plan()
    for found in (outcomes(), outcomes(status=500), []):
        text = render(own, found, judge(own, found), title="<me>")
        assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
        assert "<me>" not in text and "&lt;me&gt;" in text
        assert not re.search(r'(src|href)="http', text)
    assert render(own, outcomes(), judge(own, outcomes()), title="t").count("<svg") == 3


def test_a_plot_stays_within_its_frame():
    text = plot([("a", "red", [(0.0, 0.1), (5.0, 1000.0)])], "x", "y", log=True)
    numbers = [float(it) for it in re.findall(r"[ML]([\d.]+) [\d.]+", text)]
    assert numbers and all(0 <= it <= 900 for it in numbers)
