"""The pull request's comment: what it must say, and what no value may make of it."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET

import pytest

from flightdeck.delivery.comment import LIMIT_BYTES, MARKER, Context, comment
from flightdeck.delivery.images import policy
from flightdeck.delivery.images.advisories import Severity, Vulnerability
from flightdeck.delivery.images.packages import Kind
from flightdeck.delivery.markdown import plain, sentence, table
from flightdeck.delivery.outcome import Finding, Outcome
from flightdeck.delivery.picture import bars

MODELS = Outcome(
    gate="models", took_s=200,
    says=("late: AUC 0.781 (0.772 to 0.790), champion 0.779 (0.770 to 0.788): as good",),
    tables={"late, by slice": (("slice", "AUC", "champion"), ("carrier UA", "0.79", "0.78"))},
)  # fmt: skip
FEATURES = Outcome(
    gate="features", took_s=12,
    findings=(Finding(what="`route_late_share_7d` is read by the serving release", do="keep it until it has retired"),),
)  # fmt: skip
E2E = Outcome(gate="e2e", not_run=("the cluster's tests, since kind is not on the PATH",))
RESULTS = dict.fromkeys(("check", "integration", "data", "models", "e2e"), "success") | {
    "features": "failure", "images": "skipped", "manifests": "skipped",
}  # fmt: skip
HERE = Context(commit="a" * 40, results=RESULTS, lead_time_s=840, run_url="https://github.com/o/r/actions/runs/1")
HOSTILE = [
    "![x](https://evil.example/a.png)", "[click](javascript:alert(1))", "<img src=x onerror=alert(1)>",
    "@everyone", "fixes #1",
    "</details><h1>approved</h1>", "a | b | c", "```\nmermaid", MARKER, "https://evil.example",
    "www.evil.example", "**ok**\n## ✓ passed",
    "fixes GH-1", "gh-12", "a\u061cb", "a\x85b", "a\u00adb", "a\U000e0041b", "`x` @everyone `", "<code>**b**</code>",
    "<!-- ", "a\u202eb", "&lt;b&gt;", "o/r#12", "~~no~~", "$x$", "- [x] done",
]  # fmt: skip


def test_it_says_what_changes_for_users_and_what_to_do():
    text = comment([MODELS, FEATURES, E2E], HERE)
    assert text.startswith(MARKER)
    assert "✗ Refused by features" in text
    assert "champion 0.779 &#40;0.770 to 0.788&#41;" in text
    assert "<code>route&#95;late&#95;share&#95;7d</code> is read by the serving release<br>→ keep it until" in text
    assert "lead time so far 14 min" in text
    assert "longest: models 3 min" in text
    assert "since kind is not on the PATH" in text
    assert "| carrier UA | 0.79 | 0.78 |" in text
    assert "[The run](https://github.com/o/r/actions/runs/1)" in text


def test_a_gate_not_needed_is_neither_green_nor_red():
    text = comment([MODELS], Context("a", {"images": "skipped"}))
    assert re.search(r"\| images \| &#45; \| not needed by this change \|", text)


def test_a_job_that_died_without_a_word_is_red_and_pointed_to():
    text = comment([], Context("a", {"data": "failure", "check": "cancelled"}))
    assert "Refused by check, data" in text
    assert "**data**: ended before it could say why" in text


def test_a_refusal_is_red_even_where_the_job_is_not_known():
    assert "Refused by features" in comment([FEATURES], Context("a"))


def test_a_failed_job_is_red_although_its_gate_passed():
    assert "Refused by models" in comment([MODELS], Context("a", {"models": "failure"}))


def test_a_gate_that_did_not_report_is_not_called_passed():
    text = comment([MODELS], Context("a"))
    assert "Every gate" not in text
    assert "Not yet heard of" in text


def test_all_green_says_so():
    done = [Outcome(gate=gate, took_s=1) for gate in RESULTS]
    assert "✓ Every gate that this change needs has passed" in comment(
        done, Context("a", dict.fromkeys(RESULTS, "success"))
    )


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_shown_as_it_is_and_never_acts(value):
    for shown in (plain(value), sentence(value), table([(value, value), (value, value)])):
        bare = re.sub(r"</?code>|&#?\w+;\u200b?", "", shown)
        assert not re.search(r"[<>\[\]`@]|!\(|://|\*\*|#\d|www\.", bare), shown
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u202e\U000e0000-\U000e007f]", shown), ascii(shown)
        assert not re.search(r"gh-\d", html.unescape(shown), re.IGNORECASE), (
            "GitHub links it after it has read Markdown"
        )
    text = comment([Outcome(gate="data", findings=(Finding(what=value, do=value),), says=(value,), not_run=(value,),
                            tables={value: ((value, "b"), ("1", value))})], HERE)  # fmt: skip
    assert text.count(MARKER) == 1
    assert text.count("```mermaid") == 1
    assert text.count("</details>") == 1
    assert "evil.example)" not in text
    assert not re.search(r"@(?!\u200b)\w", text)


@pytest.mark.parametrize("value", HOSTILE)
def test_an_advisorys_words_and_an_errors_are_one_line_of_text_in_what_to_do(value):
    advised = Vulnerability(value, Kind.PYPI, value, "1", Severity.HIGH, value, title=value, where=value)
    findings = (*policy.refusals([advised]), Finding(what=f"`x` does not render: {value}", do=value))
    text = comment([Outcome(gate="images", findings=findings)], Context("a"))
    part = text.split("### What to do\n\n")[1].split("\n\n### ")[0]
    lines = part.removeprefix("- **").split("\n- **")
    assert len(lines) == len(findings), part
    for line in lines:
        bare = re.sub(r"</?code>|<br>→|&#?\w+;\u200b?", "", line.removeprefix("images**: "))
        assert not re.search(r"[<>\[\]`@|~*\n]|!\(|://|#\d|www\.", bare), line


def test_a_gates_own_name_cannot_leave_the_drawing():
    text = comment([Outcome(gate='x"]\n```\n# owned')], HERE)
    assert "\n# owned" not in text
    assert text.count("```") == 2


def test_it_never_outgrows_what_github_takes():
    rows = (("name", "value"), *((f"row {number}", "x" * 190) for number in range(60)))
    big = Outcome(gate="models", says=("w" * 5000,) * 400, findings=(Finding(what="é" * 5000, do="é" * 5000),) * 400,
                  tables={f"table {number}": rows for number in range(40)})  # fmt: skip
    text = comment([big.model_copy(update={"gate": gate}) for gate in RESULTS], HERE)
    assert len(text.encode()) <= LIMIT_BYTES
    assert "too long for a comment" in text
    assert text.startswith(MARKER)


def test_tables_go_before_any_word_does():
    rows = (("a",), *((f"{number}" * 100,) for number in range(60)))
    text = comment([MODELS.model_copy(update={"tables": {f"t{n}": rows for n in range(40)}})], HERE)
    assert len(text.encode()) <= LIMIT_BYTES
    assert "tables are too long for a comment" in text
    assert "champion 0.779" in text


def test_a_long_table_says_how_much_is_left_out():
    assert "5 more rows" in table([("a",), *[("b",)] * 65])


def test_the_picture_is_a_valid_drawing_whatever_the_names():
    drawn = bars([MODELS, FEATURES.model_copy(update={"gate": "<x & y>"})], HERE)
    root = ET.fromstring(drawn)
    words = "".join(root.itertext())
    assert "✗ <x &" in words
    assert "3 min" in words
