"""Which scanner is asked, and what is believed of its answer."""

from __future__ import annotations

import json

import pytest

from flightdeck.delivery.images import bill, scanners
from flightdeck.delivery.images.advisories import Severity
from flightdeck.delivery.images.packages import Kind, Package

ANSWER = {
    "Results": [
        {"Class": "os-pkgs", "Type": "debian"},
        {
            "Class": "lang-pkgs", "Type": "python-pkg",
            "Vulnerabilities": [{
                "VulnerabilityID": "CVE-1", "PkgName": "Foo_Bar", "InstalledVersion": "1.0", "FixedVersion": "1.8, 2.1",
                "Severity": "HIGH", "Title": "words",
            }],
        },
    ]
}  # fmt: skip


def test_trivys_answer_is_read_with_the_package_by_its_normal_name():
    (found,) = scanners.read_trivy(json.dumps(ANSWER), {Kind.PYPI, Kind.DEB})
    assert (found.id, found.package, found.fixed_in, found.severity) == ("CVE-1", "foo-bar", "2.1", Severity.HIGH)


@pytest.mark.parametrize("answer", ("", "{}", '{"Results": null}', '{"Results": [{}]}'))
def test_an_answer_that_is_none_is_no_clean_scan(answer):
    with pytest.raises(scanners.CannotScan):
        scanners.read_trivy(answer, set())


def test_a_kind_of_package_that_trivy_did_not_see_is_no_clean_scan():
    with pytest.raises(scanners.CannotScan, match="looked at no deb package"):
        scanners.read_trivy(json.dumps({"Results": [{"Class": "lang-pkgs"}]}), {Kind.PYPI, Kind.DEB})


def test_no_scanner_is_asked_unless_one_is_named(tmp_path):
    assert scanners.named({}, state=tmp_path, root=tmp_path) is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"FLIGHTDECK_SCANNER": "grype"}, "is trivy or osv, not grype"),
        ({"FLIGHTDECK_SCANNER": "osv"}, "needs FLIGHTDECK_ADVISORIES"),
        ({"FLIGHTDECK_SCANNER": "osv", "FLIGHTDECK_ADVISORIES": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_scanner_that_is_not_there_is_an_error(tmp_path, environment, words):
    with pytest.raises(scanners.CannotScan, match=words):
        scanners.named(environment, state=tmp_path, root=tmp_path)


def test_a_folder_without_a_readable_advisory_is_no_clean_scan(tmp_path):
    path = bill.keep(bill.of_locks([Package(Kind.PYPI, "a", "1")]), "locks", tmp_path)
    folder = tmp_path / "advisories"
    folder.mkdir()
    with pytest.raises(scanners.CannotScan, match="no advisory in"):
        scanners.Advisories(folder)(path)
    (folder / "x.json").write_text("{}")
    with pytest.raises(scanners.CannotScan, match=r"x\.json is no advisory"):
        scanners.Advisories(folder)(path)


def test_trivy_runs_by_digest_over_the_bill_alone(tmp_path, monkeypatch):
    log = tmp_path / "asked"
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho \"$@\" > {log}\necho '{json.dumps(ANSWER)}'\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    path = bill.keep(bill.of_locks([Package(Kind.PYPI, "a", "1")]), "locks", tmp_path)
    scanner = scanners.named({"FLIGHTDECK_SCANNER": "trivy"}, state=tmp_path, root=scanners.CHECKOUT)
    assert scanner is not None and [it.id for it in scanner(path)] == ["CVE-1"]
    asked = log.read_text()
    assert "aquasec/trivy:0.75.0@sha256:af6acf9a" in asked and "docker.sock" not in asked
