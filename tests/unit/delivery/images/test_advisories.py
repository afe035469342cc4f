"""Which versions an advisory in the OSV format hits."""

from __future__ import annotations

import itertools

import pytest

from flightdeck.delivery.images.advisories import Severity, known_against, order
from flightdeck.delivery.images.packages import Kind, Package


def advisory(*events, name="Foo_Bar", ecosystem="PyPI", versions=(), severity="HIGH", **more):
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
    affected = {"package": {"ecosystem": ecosystem, "name": name}, "ranges": ranges, "versions": list(versions)}
    return {"id": "GHSA-1", "aliases": ["CVE-1"], "affected": [affected],
            "database_specific": {"severity": severity}, "summary": "words", **more}  # fmt: skip


def pypi(version, name="foo-bar"):
    return Package(Kind.PYPI, name, version)


def hit(package, *advisories):
    return [it.id for it in known_against([package], advisories)]


@pytest.mark.parametrize(
    ("version", "inside"),
    [("0.9", False), ("1.0", True), ("1.5", True), ("1.9rc1", True), ("2.0", False), ("10.0", False), ("3.1", True)],
)
def test_a_range_begins_with_introduced_and_ends_before_fixed(version, inside):
    known = advisory({"introduced": "1.0"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"fixed": "4"})
    assert bool(hit(pypi(version), known)) is inside


def test_last_affected_is_affected():
    known = advisory({"introduced": "0"}, {"last_affected": "2.0"})
    assert hit(pypi("2.0"), known) and not hit(pypi("2.0.1"), known)


@pytest.mark.parametrize("name", ("fixed", "last_affected"))
@pytest.mark.parametrize(
    ("package", "odd", "more"),
    [
        (pypi("1.5"), "see-the-notes", {}),
        (Package(Kind.DEB, "foo", "1.5-1", "foo", "1.5-1"), "<end-of-life>", {"name": "foo", "ecosystem": "Debian:12"}),
        (Package(Kind.DEB, "foo", "1.5-1", "foo", "1.5-1"), "x:1", {"name": "foo", "ecosystem": "Debian:12"}),
    ],
)
def test_an_end_that_cannot_be_read_ends_nothing(name, package, odd, more):
    (found,) = known_against([package], [advisory({"introduced": "0"}, {name: odd}, **more)])
    assert found.fixed_in == ""


def test_a_beginning_that_cannot_be_read_is_the_first_of_all():
    known = advisory({"introduced": "long-ago"}, {"fixed": "2.0"})
    assert hit(pypi("1.0"), known) and not hit(pypi("2.0"), known)


def test_an_own_version_that_cannot_be_read_is_in_every_range():
    assert hit(pypi("my-build"), advisory({"introduced": "1.0"}, {"fixed": "2.0"}))


def test_a_listed_version_is_hit_without_a_range():
    assert hit(pypi("1.2"), advisory(versions=["1.2"])) and not hit(pypi("1.3"), advisory(versions=["1.2"]))


def test_another_name_ecosystem_or_a_withdrawn_advisory_says_nothing():
    known = advisory({"introduced": "0"})
    assert not hit(pypi("1", name="foo"), known)
    assert not hit(pypi("1"), advisory({"introduced": "0"}, ecosystem="npm"))
    assert not hit(pypi("1"), advisory({"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z"))


def test_what_was_found_says_which_version_is_well_again():
    (found,) = known_against([pypi("1.5")], [advisory({"introduced": "0"}, {"fixed": "2.0"})])
    assert (found.fixed_in, found.severity, found.names) == ("2.0", Severity.HIGH, {"GHSA-1", "CVE-1"})


def test_debians_packages_are_found_by_their_source():
    package = Package(Kind.DEB, "libssl3", "3.0.17-1~deb12u1", "openssl", "3.0.17-1~deb12u1")
    known = advisory({"introduced": "0"}, {"fixed": "3.0.17-1~deb12u2"}, name="openssl", ecosystem="Debian:12")
    (found,) = known_against([package], [known])
    assert (found.package, found.fixed_in) == ("libssl3", "3.0.17-1~deb12u2")


def test_what_nobody_rated_is_worst():
    assert Severity.of("") is Severity.UNKNOWN
    assert Severity.UNKNOWN > Severity.CRITICAL > Severity.of("moderate")
    (found,) = known_against([pypi("1")], [advisory({"introduced": "0"}, severity=None)])
    assert found.severity is Severity.UNKNOWN


def test_debians_versions_are_ordered_as_its_policy_says():
    rising = ["1.0~rc1", "1.0", "1.0-1", "1.0-1+b1", "1.0a", "1.0+dfsg-1", "1.2", "1.10", "1:0.1"]
    orders = [order(Kind.DEB, it) for it in rising]
    assert all(lower < higher for lower, higher in itertools.pairwise(orders))
