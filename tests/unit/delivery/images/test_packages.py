"""What is read out of a status file, a wheel and a lock, and the bill that is made of it."""

from __future__ import annotations

import json

import pytest

from flightdeck.delivery.images import bill
from flightdeck.delivery.images.packages import Kind, Package, distro, from_dpkg, from_lock, from_locks, from_metadata

STATUS = """\
Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl (3.0.17-1~deb12u2)
Version: 3.0.17-1~deb12u3
Description: TLS
 Package: not this one

Package: gone
Status: deinstall ok config-files
Version: 1

Package: dash
Status: install ok installed
Architecture: amd64
Version: 1:0.5.12-2
"""
LIBSSL = Package(Kind.DEB, "libssl3", "3.0.17-1~deb12u3", "openssl", "3.0.17-1~deb12u2", "amd64")
DASH = Package(Kind.DEB, "dash", "1:0.5.12-2", "dash", "1:0.5.12-2", "amd64")


def test_debians_packages_are_those_installed_with_the_source_they_come_from():
    assert from_dpkg(STATUS) == [DASH, LIBSSL]


def test_a_wheel_goes_by_its_normal_name():
    assert from_metadata("Metadata-Version: 2.4\nName: Foo_Bar\nVersion: 1.0\n\nName: no\n").name == "foo-bar"
    with pytest.raises(ValueError, match="without Name or Version"):
        from_metadata("Summary: none\n")


def test_every_pin_of_a_lock_counts_whatever_its_marker():
    lock = "a==1 ; python_version < '3.12' \\\n    --hash=sha256:0\na==2 ; python_version >= '3.12'\n"
    assert [it.version for it in from_lock(lock)] == ["1", "2"]


@pytest.mark.parametrize("line", ("a>=1", "a", "git+https://example.org/a.git", "a==1,==2"))
def test_what_is_no_pin_is_no_lock(line):
    with pytest.raises(ValueError, match="a"):
        from_lock(line + "\n")


def test_a_lock_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "service.txt").write_text("a>=1\n")
    with pytest.raises(ValueError, match=r"service\.txt: not pinned to one version: a>=1"):
        from_locks(tmp_path.glob("*.txt"))


def test_the_distribution_is_what_os_release_says():
    assert distro('PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\n') == ("debian", "12")
    assert distro("") == ("", "")


def test_a_bill_is_equal_for_equal_packages_in_any_order_and_holds_them_all():
    packages = [LIBSSL, DASH, Package(Kind.PYPI, "httpx", "0.28.1"), Package(Kind.GENERIC, "python", "3.11.9")]
    digest = "sha256:" + "a" * 64
    one, other = (
        bill.of_image("flightdeck/x", digest, it, distro=("debian", "12"), created="2026-01-02T03:04:05.123456789Z")
        for it in (packages, packages[::-1])
    )
    assert one == other
    assert sorted(bill.packages_of(one)) == sorted(packages)
    assert json.loads(one)["metadata"]["component"]["version"] == digest


def test_a_debian_package_carries_what_trivy_matches_by():
    written = json.loads(bill.of_image("x", "sha256:" + "a" * 64, [LIBSSL, DASH], distro=("debian", "12")))
    said = {
        it["name"]: {item["name"].removeprefix("aquasecurity:trivy:"): item["value"] for item in it["properties"]}
        for it in written["components"]
    }
    assert said["libssl3"]["SrcName"] == "openssl"
    assert (said["libssl3"]["SrcVersion"], said["libssl3"]["SrcRelease"]) == ("3.0.17", "1~deb12u2")
    assert said["dash"]["SrcEpoch"] == "1"
    assert said["debian"]["Class"] == "os-pkgs"
    (purl,) = [it["purl"] for it in written["components"] if it["name"] == "libssl3"]
    assert purl == "pkg:deb/debian/libssl3@3.0.17-1~deb12u3?arch=amd64&distro=debian-12&upstream=openssl"


def test_a_bill_that_the_schema_refuses_is_not_written():
    with pytest.warns(UserWarning, match="1024"), pytest.raises(bill.BillError, match="not valid"):
        bill.of_image("x", "sha256:1", [Package(Kind.PYPI, "a", "1" * 2000)])
