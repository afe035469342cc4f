"""What a gate found, in a log and on a job's page: a value commands nothing there."""

from __future__ import annotations

import pytest

from flightdeck.delivery.outcome import Finding, Outcome, fenced


@pytest.mark.parametrize(
    "value", ["::error::x", "a\n::set-output name=x::1", "a\r  ::add-mask::b", "a ##[add-matcher]/x"]
)
def test_no_value_is_a_command_to_the_runner(value):
    said = Outcome(gate="g", says=(value,), findings=(Finding(what=value, do=value),), not_run=(value,)).text()
    assert "##[" not in said
    assert not any(line.lstrip().startswith("::") for line in said.replace("\r", "\n").splitlines())


def test_other_words_stay_as_they_are():
    assert "  REFUSED: a::b at x::y" in Outcome(gate="g", findings=(Finding(what="a::b at x::y", do="c"),)).text()


@pytest.mark.parametrize("text", ("a", "a\n```\n# owned", "````\n"))
def test_no_text_leaves_its_fence(text):
    first, *_, last = fenced(text).splitlines()
    assert first == f"{last}text" and set(last) == {"`"}
    assert last not in text
