"""Artefact store, signatures, the page, and a registry that does not answer."""

from __future__ import annotations

import datetime as dt
import socket
import stat
import time
from pathlib import Path

import pytest

from flightdeck.contracts import approval
from flightdeck.contracts.artefact import ONNX_FILE, ArtefactError, ModelManifest, ServedFeature
from flightdeck.contracts.card import Digests, GateResult, ModelCard, SignedCard
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.model_spec import ModelSpec, Task
from flightdeck.contracts.release import ModelRef, Release
from pipelines.registry.artefacts import adopt, bytes_digest, opened, store
from pipelines.registry.card_page import page
from pipelines.registry.mlflow_adapter import MlflowRegistry, RegistryUnavailable, tracking_uri_or_env
from pipelines.registry.signing import (
    KEY_ENV,
    PUBLIC_FILE,
    PUBLIC_KEY_ENV,
    SignatureRefused,
    approve,
    card_sha256,
    public_hex,
    sign,
    signing_key,
    trusted_keys,
    verify,
)

WHEN = dt.datetime(2013, 7, 1, tzinfo=dt.UTC)


@pytest.fixture
def manifest() -> ModelManifest:
    feature = ServedFeature(name="a", source="stored", view="v", join_keys=["k"], feast_type="FLOAT", default=0.5)
    return ModelManifest(
        model="m", task=Task.REGRESSION, horizon_min=120, unit="min", feature_project="flightdeck",
        feature_service="m_v1", features=[feature], views={}, decision_threshold=None, fallback_score=1.0,
        files=[bytes_digest(ONNX_FILE, b"graph")],
    )  # fmt: skip


@pytest.fixture
def card() -> ModelCard:
    digests = Digests(
        git_commit="c", lock_sha256="l", spec_sha256="s", holdout_sha256="h", table_versions={}, feature_export="e"
    )
    gate = GateResult(gate="quality", verdict=Verdict.REJECT, measured=0.1, margin=0.2, reason="<b>worse</b>")
    return ModelCard(
        model="m", version="3", sha256="0" * 64, created_at=WHEN, purpose="p", horizon_min=120, feature_service="m_v1",
        features=["a"], train_from=WHEN, train_until=WHEN, holdout_from=WHEN, holdout_until=WHEN, train_rows=1,
        holdout_rows=1, params={}, metrics={}, champion_version=None, champion_metrics={}, slices=[], importances={},
        digests=digests, gates=[gate], verdict=Verdict.REJECT, reason="quality: <b>worse</b>",
    )  # fmt: skip


def test_equal_content_has_one_artefact_and_its_folder_is_its_digest(tmp_path: Path, manifest: ModelManifest):
    first, second = store(tmp_path, manifest, b"graph"), store(tmp_path, manifest, b"graph")
    assert first == second
    assert first[1] == tmp_path / first[0]
    assert [item.name for item in tmp_path.iterdir()] == [first[0]]


def test_an_altered_artefact_is_neither_opened_nor_written_over(tmp_path: Path, manifest: ModelManifest):
    sha256, folder = store(tmp_path, manifest, b"graph")
    (folder / ONNX_FILE).write_bytes(b"grafh")
    with pytest.raises(ArtefactError, match="refusing"):
        opened(tmp_path, sha256)
    with pytest.raises(ArtefactError, match="refusing"):
        store(tmp_path, manifest, b"graph")


def test_a_download_of_other_content_is_not_adopted(tmp_path: Path, manifest: ModelManifest):
    _, folder = store(tmp_path / "theirs", manifest, b"graph")
    with pytest.raises(ArtefactError, match="asked for"):
        adopt(tmp_path / "ours", folder, "f" * 64)
    assert not (tmp_path / "ours").exists()


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(KEY_ENV, raising=False)
    first, second = signing_key(tmp_path / "keys"), signing_key(tmp_path / "keys")
    assert first.private_bytes_raw() == second.private_bytes_raw()
    assert stat.S_IMODE((tmp_path / "keys" / "signing.pem").stat().st_mode) == 0o600


def test_a_given_key_file_that_is_absent_is_not_replaced_by_a_new_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "absent.pem"))
    with pytest.raises(ValueError, match=r"absent.pem"):
        signing_key(tmp_path)
    assert not (tmp_path / "absent.pem").exists()


def test_a_signed_card_survives_json_and_an_altered_one_does_not(
    tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(KEY_ENV, raising=False)
    signed = sign(card, signing_key(tmp_path))
    again = SignedCard.model_validate_json(signed.model_dump_json(indent=2))
    assert verify(again, trusted_keys(tmp_path)) == card
    forged = signed.model_copy(update={"card": card.model_copy(update={"verdict": Verdict.PROMOTE})})
    with pytest.raises(SignatureRefused, match="altered"):
        verify(forged, trusted_keys(tmp_path))


def test_a_card_signed_by_a_stranger_is_refused_although_its_signature_fits(
    tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(KEY_ENV, raising=False)
    signing_key(tmp_path / "ours")
    stranger = sign(card, signing_key(tmp_path / "theirs"))
    with pytest.raises(SignatureRefused, match="trusted"):
        verify(stranger, trusted_keys(tmp_path / "ours"))


def test_the_public_half_alone_is_enough_to_trust_a_card(
    tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(KEY_ENV, raising=False)
    signed = sign(card, signing_key(tmp_path / "gate"))
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "not-mounted.pem"))
    monkeypatch.setenv(PUBLIC_KEY_ENV, str(tmp_path / "gate" / PUBLIC_FILE))
    assert verify(signed, trusted_keys(tmp_path / "nothing")) == card


def approved(card: ModelCard, folder: Path) -> tuple[Release, str]:
    """A release of the card's version as the gate leaves it, and the key that is trusted."""
    key, said = signing_key(folder), card.model_copy(update={"verdict": Verdict.PROMOTE})
    ref = ModelRef(name=card.model, version=card.version, sha256=card.sha256, approval=approve(said, key))
    assert ref.approval and ref.approval.card_sha256 == card_sha256(said)
    release = Release.model_validate({"image": "c", "model": ref, "featureService": card.feature_service})
    return release, public_hex(key)


def test_what_the_gate_approves_its_public_key_confirms(
    tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(KEY_ENV, raising=False)
    release, key = approved(card, tmp_path)
    assert approval.refusal(release, [key]) == ""
    assert approval.refusal(Release.model_validate_json(release.model_dump_json(by_alias=True)), ["0" * 64, key]) == ""


@pytest.mark.parametrize("verdict", [Verdict.HOLD, Verdict.REJECT])
def test_no_other_verdict_is_approved(tmp_path: Path, card: ModelCard, verdict: Verdict):
    with pytest.raises(ValueError, match=f"says {verdict}"):
        approve(card.model_copy(update={"verdict": verdict}), signing_key(tmp_path))


def test_an_approval_counts_for_its_version_content_and_features_only(
    tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(KEY_ENV, raising=False)
    release, key = approved(card, tmp_path)
    model, word = release.model, release.model.approval
    assert word
    altered = [
        model.model_copy(update={"version": "4"}), model.model_copy(update={"sha256": "1" * 64}),
        model.model_copy(update={"name": "n"}),
        model.model_copy(update={"approval": word.model_copy(update={"card_sha256": "1" * 64})}),
        model.model_copy(update={"approval": word.model_copy(update={"signature": "0" * 128})}),
    ]  # fmt: skip
    others = [release.model_copy(update={"model": it}) for it in altered]
    others.append(release.model_copy(update={"feature_service": "m_v2"}))
    for other in others:
        assert "altered" in approval.refusal(other, [key]), other
    assert "none of the 0 trusted keys" in approval.refusal(release, [])
    assert approval.refusal(release.model_copy(update={"image": "other code"}), [key]) == ""


def test_a_signed_card_is_no_approval(tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(KEY_ENV, raising=False)
    release, key = approved(card, tmp_path)
    word = release.model.approval
    assert word
    forged = word.model_copy(update={"signature": sign(card, signing_key(tmp_path)).signature})
    other = release.model_copy(update={"model": release.model.model_copy(update={"approval": forged})})
    assert approval.refusal(other, [key])


def test_two_keys_are_trusted_while_one_replaces_the_other(
    tmp_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(KEY_ENV, raising=False)
    old, new = sign(card, signing_key(tmp_path / "old")), sign(card, signing_key(tmp_path / "new"))
    both = tmp_path / "both.pub"
    both.write_text(f"{old.public_key}  # until June\n\n{new.public_key}\n")
    monkeypatch.setenv(PUBLIC_KEY_ENV, str(both))
    assert verify(old, trusted_keys(tmp_path)) == verify(new, trusted_keys(tmp_path)) == card


@pytest.mark.parametrize("content", [None, "", "no key", "ab" * 31, f"{'ab' * 32}\nno key", "# none"])
def test_a_public_key_that_is_none_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None):
    monkeypatch.setenv(PUBLIC_KEY_ENV, str(tmp_path / "signing.pub"))
    if content is not None:
        (tmp_path / "signing.pub").write_text(content)
    with pytest.raises(SignatureRefused, match=r"signing.pub"):
        trusted_keys(tmp_path)


def test_the_page_escapes_what_it_shows_and_fetches_nothing(card: ModelCard, spec: ModelSpec):
    html = page(card, {"roc": b"png"}, spec)
    assert "<b>worse</b>" not in html and "&lt;b&gt;worse&lt;/b&gt;" in html
    assert "REJECT" in html
    assert "http" not in html and "<script" not in html


def test_a_server_that_is_down_is_told_at_once_with_what_to_do():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    started = time.perf_counter()
    with pytest.raises(RegistryUnavailable, match="make lab-up"):
        MlflowRegistry(address)
    assert time.perf_counter() - started < 5


def test_no_address_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RegistryUnavailable, match="--tracking-uri"):
        tracking_uri_or_env(None)
