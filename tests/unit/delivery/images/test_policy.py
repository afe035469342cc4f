"""What blocks, what may stay and until when."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from flightdeck.delivery.images import policy
from flightdeck.delivery.images.advisories import Severity, Vulnerability
from flightdeck.delivery.images.packages import Kind

TODAY = dt.date(2026, 6, 1)
WAIVER = {"id": "CVE-1", "reason": "never called", "owner": "platform", "expires": dt.date(2026, 6, 1)}


def held(*waivers, **more):
    given = {"blocks_from": "high", "blocks_unfixed_base": False, "required": True, "longest_days": 90, **more}
    return policy.Policy(exceptions=waivers, **given)


def vulnerability(severity=Severity.HIGH, identity="GHSA-1", package="foo", fixed_in="2.0", **more):
    return Vulnerability(identity, Kind.PYPI, package, "1.0", severity, fixed_in, aliases=("CVE-1",), **more)


@pytest.mark.parametrize("severity", list(Severity))
def test_from_the_bar_on_and_unrated_is_refused(severity):
    judged = policy.judge([vulnerability(severity)], held(), TODAY)
    assert bool(judged.refused) is (severity in (Severity.HIGH, Severity.CRITICAL, Severity.UNKNOWN))


@pytest.mark.parametrize("blocks", (True, False))
def test_debian_without_a_fix_waits_unless_the_policy_says_otherwise(blocks):
    unfixed = dataclasses.replace(vulnerability(fixed_in=""), kind=Kind.DEB)
    judged = policy.judge([unfixed], held(blocks_unfixed_base=blocks), TODAY)
    assert (bool(judged.refused), bool(judged.waiting)) == (blocks, not blocks)
    assert policy.judge([vulnerability(fixed_in="")], held(), TODAY).refused, "a Python package can be replaced"


def test_an_exception_holds_through_its_last_day_and_by_any_name():
    judged = policy.judge([vulnerability()], held(WAIVER), TODAY)
    assert not judged.refused and judged.excepted[0][1].owner == "platform"


def test_an_expired_exception_excuses_nothing_and_is_refused_itself():
    tomorrow = TODAY + dt.timedelta(days=1)
    assert policy.judge([vulnerability()], held(WAIVER), tomorrow).refused
    (finding,) = policy.of_exceptions(held(WAIVER), tomorrow)
    assert "expired on 2026-06-01 (owner platform: never called)" in finding.what


def test_an_exception_for_another_package_excuses_nothing():
    assert policy.judge([vulnerability()], held({**WAIVER, "package": "bar"}), TODAY).refused


def test_an_exception_may_not_reach_further_than_the_policy_says():
    (finding,) = policy.of_exceptions(held({**WAIVER, "expires": dt.date(2099, 1, 1)}), TODAY)
    assert "longer than 90 days" in finding.what and "2026-08-30" in finding.do


def test_an_exception_that_nothing_needs_is_refused():
    assert not policy.unused(held(WAIVER), [vulnerability()])
    (finding,) = policy.unused(held(WAIVER), [])
    assert "excuses nothing" in finding.what


def test_one_refusal_per_package_names_the_version_that_fixes_all():
    two = [vulnerability(identity=it, fixed_in=fix, where="requirements/a.txt") for it, fix in
           (("A-1", "1.9"), ("A-2", "1.10"))]  # fmt: skip
    (finding,) = policy.refusals(two)
    assert finding.what.startswith("foo 1.0 in requirements/a.txt: A-1 (high), A-2 (high)")
    assert "require foo>=1.10 in pyproject.toml and run `make lock`" in finding.do


def test_without_a_fix_the_way_out_is_another_package():
    (finding,) = policy.refusals([vulnerability(fixed_in="")])
    assert "no fixed version is known: replace foo" in finding.do


HEAD = "blocks_from: high\nblocks_unfixed_base: false\nrequired: true\nlongest_days: 9\n"


@pytest.mark.parametrize(
    "text",
    (
        "",
        "blocks_from: high",
        HEAD.replace("high", "dire"),
        HEAD + "exceptions: [{id: CVE-1, reason: x, owner: y}]",
        HEAD + "exceptions: [{id: CVE-1, reason: ' ', owner: y, expires: 2026-01-01}]",
    ),
)
def test_a_policy_that_is_none_is_refused_with_its_place(tmp_path, text):
    (tmp_path / "vulnerabilities.yaml").write_text(text)
    with pytest.raises(policy.PolicyError, match=r"vulnerabilities\.yaml"):
        policy.load(tmp_path / "vulnerabilities.yaml")
