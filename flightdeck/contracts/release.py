"""A Release: code, model and feature service. A change of any of the three is a candidate."""

from __future__ import annotations

import hashlib

import pydantic


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Approval(_Strict):
    """The gate's signed word that the version's card says PROMOTE (docs/gates.md)."""

    card_sha256: str = pydantic.Field(
        alias="cardSha256", pattern=r"^[0-9a-f]{64}$", description="Of the model card's canonical JSON."
    )
    signature: str = pydantic.Field(
        pattern=r"^[0-9a-f]{128}$",
        description="Ed25519, hex, of the gate job's key over version, content and verdict.",
    )


class ModelRef(_Strict):
    """One registered model version, by content."""

    name: str = pydantic.Field(description="Registered name of the model.")
    version: str = pydantic.Field(description="Version in the registry.")
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$", description="Of the artefact's manifest: its content.")
    image: str | None = pydantic.Field(
        default=None,
        pattern=r"^[^@\s]+@sha256:[0-9a-f]{64}$",
        description="The artefact as an OCI image by digest, where nodes pull it; none in the lab.",
    )
    approval: Approval | None = pydantic.Field(
        default=None, description="Without it a release is let in by a break-glass only."
    )


class Release(_Strict):
    """What serves: code, model and feature service, each by content. Git leaves it out; whoever delivers sets it."""

    image: str = pydantic.Field(min_length=1, description="The code: an image by digest; in the lab a commit.")
    model: ModelRef
    feature_service: str = pydantic.Field(
        alias="featureService", description="What the model reads, by its name in the feature registry."
    )

    @property
    def id(self) -> str:
        """Eight hex digits that name exactly this release: in the names of processes and clusters, and in tables.

        Where the model lies (`model.image`) is no part of it: `model.sha256` names the content. Nor is what the gate
        said of it (`model.approval`).
        """
        content = "\n".join((self.image, self.model.name, self.model.version, self.model.sha256, self.feature_service))
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    @property
    def short(self) -> str:
        """For tables and logs: `late v7 (3f2a91c0), late_v1, code 1a2b3c4`."""
        model = f"{self.model.name} v{self.model.version} ({self.model.sha256[:8]})"
        code = self.image.rpartition("sha256:")[2][:12]
        return f"{model}, {self.feature_service}, code {code}"
