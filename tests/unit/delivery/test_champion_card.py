"""The champion card: what goes in, that it comes back whole from a file and from a registry, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flightdeck.contracts.release import ModelRef, Release
from flightdeck.delivery.champion_card import (
    CardRefused,
    CardUnreadable,
    collect,
    fetch,
    publish,
    releases_in,
    unverified,
    wanted,
)
from pipelines.registry.distribution import PASSWORD_ENV, USER_ENV, RegistryFailed, address
from pipelines.registry.signing import PUBLIC_KEY_ENV, SignatureRefused, public_hex, sign
from tests.unit.delivery.champion_cards import AT, KEY, REGISTRY, champion, model_card


class OciRegistry(http.server.BaseHTTPRequestHandler):
    """As much of the distribution API as a push and a pull need; asks for a token of its own when `user` is set."""

    store: dict[str, bytes]
    user = ""

    def log_message(self, *_: object) -> None: ...

    def say(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refused(self) -> bool:
        word = self.headers.get("authorization")
        if (
            not self.user
            or word == "Bearer may-push"
            or (word == "Bearer may-pull" and self.command in {"GET", "HEAD"})
        ):
            return False
        if word:
            self.say(403)
            return True
        realm = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        self.say(401, www_authenticate=f'Bearer realm="{realm}",service="r",scope="repository:a/b:pull"')
        return True

    def do_GET(self) -> None:
        if self.path.startswith("/token?"):
            asked = self.headers.get("authorization") == f"Basic {base64.b64encode(self.user.encode()).decode()}"
            return (
                self.say(200, json.dumps({"token": "may-push" if "push" in self.path else "may-pull"}).encode())
                if asked
                else self.say(403)
            )
        if not self.refused():
            found = self.store.get(self.path.rpartition("/")[2])
            self.say(404) if found is None else self.say(200, found)
        return None

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if not self.refused():
            self.say(202, location=f"{self.path}one?state=x")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.refused():
            return
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.store[digest] = content
        if "/manifests/" in self.path:
            self.store[self.path.rpartition("/")[2]] = content
        else:
            assert re.search(r"digest=sha256(:|%3A)", self.path)
        self.say(201)


@pytest.fixture
def registry() -> Iterator[tuple[str, type[OciRegistry]]]:
    handler = type("Handler", (OciRegistry,), {"store": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}/acme/flightdeck/champion-card", handler
    server.shutdown()
    server.server_close()


def test_it_comes_back_whole_from_a_file_and_from_a_registry(tmp_path: Path, registry: tuple[str, type[OciRegistry]]):
    card, (place, _) = champion(), registry
    assert fetch(publish(card, str(tmp_path / "deep" / "card.json"))) == card
    by_digest = publish(card, f"{place}:dev")
    assert by_digest.startswith(f"{place}@sha256:")
    assert fetch(f"{place}:dev") == fetch(by_digest) == card


def test_a_registry_that_asks_for_a_token_gets_a_login_and_says_so_without_one(
    registry: tuple[str, type[OciRegistry]], monkeypatch: pytest.MonkeyPatch
):
    place, handler = registry
    handler.user = "octo:secret"
    monkeypatch.delenv(USER_ENV, raising=False)
    with pytest.raises(RegistryFailed, match=f"no token for repository:a/b.*403.*{USER_ENV}"):
        publish(champion(), f"{place}:dev")
    monkeypatch.setenv(USER_ENV, "octo")
    monkeypatch.setenv(PASSWORD_ENV, "secret")
    assert fetch(publish(champion(), f"{place}:dev")) == champion()


def test_unset_is_no_champion_but_a_named_card_that_cannot_be_read_is_refused(
    tmp_path: Path, registry: tuple[str, type[OciRegistry]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("FLIGHTDECK_CHAMPION_CARD", raising=False)
    assert wanted() is None
    (tmp_path / "other.json").write_text('{"environment": "dev"}')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    for reference in (
        tmp_path / "absent.json", tmp_path / "other.json", tmp_path / "binary.json", f"{registry[0]}:none",
        "127.0.0.1:1/a/b:dev", "nowhere",
    ):  # fmt: skip
        monkeypatch.setenv("FLIGHTDECK_CHAMPION_CARD", str(reference))
        with pytest.raises(CardUnreadable, match="cannot be read"):
            wanted()


def test_bytes_that_were_altered_in_the_registry_are_refused(registry: tuple[str, type[OciRegistry]]):
    place, handler = registry
    by_digest = publish(champion(), f"{place}:dev")
    layer = next(key for key, it in handler.store.items() if b"champion-card.json" in it[:100])
    handler.store[layer] = handler.store[layer].replace(b"0.78", b"0.58")
    with pytest.raises(CardUnreadable, match="bytes are not"):
        fetch(by_digest)


def test_only_cards_of_a_trusted_key_go_in_one_per_model():
    other, ours = sign(model_card(), Ed25519PrivateKey.generate()), sign(model_card(), KEY)
    more = {"environment": "dev", "trusted": [public_hex(KEY)], "now_utc": AT}
    with pytest.raises(CardRefused, match="trusted is"):
        collect([other], REGISTRY, **more)
    altered = ours.model_copy(update={"card": ours.card.model_copy(update={"reason": "other"})})
    with pytest.raises(CardRefused, match="altered"):
        collect([altered], REGISTRY, **more)
    with pytest.raises(CardRefused, match="two cards of late"):
        collect([ours, ours], REGISTRY, **more)


def test_a_card_whose_registry_lacks_what_a_release_reads_is_not_written():
    with pytest.raises(CardRefused, match="releases read late_v2"):
        champion(registry=REGISTRY[:1])


def test_a_release_of_another_version_does_not_go_with_the_card():
    release = Release(image="code", model=ModelRef(name="late", version="4", sha256="a" * 64), featureService="late_v2")
    with pytest.raises(CardRefused, match="the card is about"):
        champion(releases={"late": release})


def test_who_reads_what_is_told_per_model_and_for_releases_that_can_be_undone_to():
    card = champion(still_read=("late_v1",))
    assert card.protected == ("late_v1", "late_v2")
    assert card.reads("late") == {"weather": ("temp_f", "dewp_f")}


def test_modelrollouts_tell_what_serves_and_every_service_that_is_read():
    def release(version: str, service: str) -> dict[str, object]:
        model = {"name": "late", "version": version, "sha256": "a" * 64}
        return {"image": "code", "model": model, "featureService": service}

    rollout = {
        "kind": "ModelRollout", "spec": {"release": release("4", "late_v3")},
        "status": {"champion": release("3", "late_v2"), "releases": {"older": release("2", "late_v1")}},
    }  # fmt: skip
    serving, read = releases_in(json.dumps({"kind": "ModelRolloutList", "items": [rollout]}))
    assert {name: it.model.version for name, it in serving.items()} == {"late": "3"}
    assert read == ("late_v1", "late_v2", "late_v3")
    assert releases_in(json.dumps(rollout)) == (serving, read)
    with pytest.raises(CardRefused, match="get modelrollouts"):
        releases_in("[]")


def test_signatures_are_checked_where_a_key_is_named_and_said_not_to_be_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(PUBLIC_KEY_ENV, raising=False)
    assert PUBLIC_KEY_ENV in unverified(champion())
    (tmp_path / "key").write_text(public_hex(KEY))
    monkeypatch.setenv(PUBLIC_KEY_ENV, str(tmp_path / "key"))
    assert unverified(champion()) == ""
    (tmp_path / "key").write_text(public_hex(Ed25519PrivateKey.generate()))
    with pytest.raises(SignatureRefused):
        unverified(champion())


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("ghcr.io/a/b", "https://ghcr.io"), ("localhost:5001/a", "http://localhost:5001"),
        ("kind-registry:5000/a", "http://kind-registry:5000"), ("127.0.0.1:5/a", "http://127.0.0.1:5"),
        ("http://reg.example.com/a", "http://reg.example.com"),
    ],
)  # fmt: skip
def test_only_a_registry_of_this_machine_or_network_speaks_plain_http(text: str, base: str):
    assert address(text)[0] == base
