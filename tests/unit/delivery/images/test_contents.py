"""What must not be in an image, and how it is read out of an archive."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from flightdeck.delivery.images import contents, layers
from flightdeck.delivery.images.packages import Kind

KEY = b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("app/.env", b""), ("app/.env.production", b""), ("app/.git/config", b""), ("root/.ssh/id_ed25519", None),
        ("app/settings.txt", b"# mine\n" + KEY), ("etc/tls.pem", KEY), ("venv/lib/x/tls.key", KEY), ("tmp/.netrc", b""),
        ("app/tests/test_a.py", b""),
    ],
)  # fmt: skip
def test_what_is_secret_or_of_no_use_is_refused(path, content):
    (wrong,) = contents.forbidden([(path, content)])
    assert wrong.startswith(f"/{path}: ")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("app/services/a.py", b'KEY = "-----BEGIN PRIVATE KEY-----"'), ("venv/lib/certifi/cacert.pem", b"CERTIFICATE"),
        ("venv/lib/python3.11/site-packages/tornado/test/test.key", KEY), ("app/environment.py", b""),
        ("venv/lib/python3.11/site-packages/numpy/tests/test_a.py", b""), ("app/.gitignore", b""),
    ],
)  # fmt: skip
def test_what_only_looks_like_it_is_not(path, content):
    assert contents.forbidden([(path, content)]) == []


@pytest.mark.parametrize(
    ("user", "root"), [("", True), ("root", True), ("0", True), ("0:0", True), ("app", True), ("10001:10001", False)]
)
def test_only_a_number_above_zero_is_surely_not_root(user, root):
    assert contents.may_be_root(user) is root


def test_packages_are_debians_wheels_and_python_itself():
    files = {
        "var/lib/dpkg/status": b"Package: dash\nStatus: install ok installed\nVersion: 1\n",
        "venv/lib/python3.11/site-packages/a-1.dist-info/METADATA": b"Name: a\nVersion: 1\n\n",
        "usr/lib/os-release": b'ID=debian\nVERSION_ID="12"\n',
    }
    found, distro = contents.packages(files, {"PYTHON_VERSION": "3.11.9"})
    assert [(it.kind, it.name) for it in found] == [(Kind.DEB, "dash"), (Kind.GENERIC, "python"), (Kind.PYPI, "a")]
    assert distro == ("debian", "12")
    assert all(contents.wanted(path, 10**9) for path in files)


def tar(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def saved(names: list[str], *contents_: dict[str, bytes]) -> io.BytesIO:
    manifest = json.dumps([{"Config": "c.json", "Layers": names}]).encode()
    parts = {name: tar(entries) for name, entries in zip(names, contents_, strict=True)}
    last_first = dict(reversed(parts.items()))
    return io.BytesIO(tar({"VERSION": b"1.0", "c.json": b"{}", **last_first, "manifest.json": manifest}))


@pytest.mark.parametrize("names", (["1/layer.tar", "2/layer.tar"], ["blobs/sha256/1", "blobs/sha256/2"]))
def test_layers_come_in_the_manifests_order_and_hide_but_do_not_remove(names):
    archive = saved(names, {"a/secret": b"s", "a/b": b"1", "c": b"c"}, {"a/.wh.secret": b"", "./c": b"new"})
    found = layers.read_archive(archive, lambda _path, size: size < 10)
    image = layers.Image("sha256:1", "", "", {}, found)
    assert image.files == {"a/b": b"1", "c": b"new"}
    assert image.shipped == [("a/secret", b"s"), ("a/b", b"1"), ("c", b"c"), ("c", b"new")]


def test_a_key_that_a_later_layer_overwrites_is_still_found():
    archive = saved(["1/layer.tar", "2/layer.tar"], {"app/settings.txt": KEY}, {"app/settings.txt": b"clean"})
    image = layers.Image("", "", "", {}, layers.read_archive(archive, contents.wanted))
    assert image.files == {"app/settings.txt": b"clean"}
    assert contents.forbidden(image.shipped) == ["/app/settings.txt: a private key or a password"]


METADATA = "venv/lib/python3.11/site-packages/a-1.dist-info/METADATA"


def linked(name: str, target: str, kind: bytes, content: bytes) -> io.BytesIO:
    """An image of one layer: a file, and a link to it."""
    layer = io.BytesIO(tar({target: content}) if content else b"")
    with tarfile.open(fileobj=layer, mode="a" if content else "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)
    parts = {"1/layer.tar": layer.getvalue(), "manifest.json": b'[{"Layers": ["1/layer.tar"]}]'}
    return io.BytesIO(tar(parts))


def test_a_hard_link_has_the_content_of_its_target():
    target = "root/cache/a-1.dist-info/METADATA"
    (layer,) = layers.read_archive(linked(METADATA, target, tarfile.LNKTYPE, b"Name: a\n"), contents.wanted)
    assert layer.files == {target: b"Name: a\n", METADATA: b"Name: a\n"}


@pytest.mark.parametrize(
    ("kind", "target", "content"),
    [(tarfile.SYMTYPE, "cache/METADATA", b""), (tarfile.LNKTYPE, "usr/share/x", b"Name: a\n")],
)
def test_what_tells_packages_and_was_not_read_is_no_clean_bill(kind, target, content):
    (layer,) = layers.read_archive(linked(METADATA, target, kind, content), contents.wanted)
    with pytest.raises(ValueError, match=f"/{METADATA}: a link whose content was not read"):
        contents.packages(layer.files, {})


def test_an_opaque_folder_hides_all_that_was_below():
    archive = saved(["1/layer.tar", "2/layer.tar"], {"a/x": b"", "b": b""}, {"a/.wh..wh..opq": b"", "a/y": b""})
    found = layers.Image("", "", "", {}, layers.read_archive(archive, lambda *_: False))
    assert set(found.files) == {"b", "a/y"}


def test_an_archive_without_its_layers_is_refused():
    with pytest.raises((KeyError, ValueError)):
        layers.read_archive(io.BytesIO(tar({"manifest.json": b'[{"Layers": ["1/layer.tar"]}]'})), lambda *_: False)
