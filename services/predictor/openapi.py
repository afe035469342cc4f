"""The API's description, made from the types that decode and encode, and a page that shows it without a network."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from feature_repo import request as use_case
from flightdeck.contracts.artefact import ModelManifest
from services.predictor import schema
from services.predictor.runtime import Runtime

_REFS = "#/components/schemas/{name}"
_ERRORS = {  # status: why, and an example of code, message and field
    400: ("The body is not JSON.", ("not_json", "NaN is not JSON; numbers are finite", "rows[0].x")),
    408: ("The body did not arrive in time.", ("body_timeout", "the body did not arrive within 10 s", None)),
    413: ("The body is too large.", ("body_too_large", "a body has at most 2000000 bytes; ...", None)),
    415: (
        "The content type is not application/json.",
        ("unsupported_media_type", "send content-type: application/json", "content-type"),
    ),
    422: (
        "The body breaks the schema: unknown or missing field, wrong type, value out of range or not known.",
        ("unknown_field", "Object contains unknown field `x`", "rows[0].x"),
    ),
}
_REJECTED = {
    503: (
        "A view whose policy is `reject` has no usable values.",
        ("features_unavailable", "history: stale 180000 s > 129600 s", "rows[0]"),
    )
}


def document(runtime: Runtime, score_row: type[Any]) -> dict[str, Any]:
    """OpenAPI 3.1 of one predictor, with an example for every body."""
    settings, manifest = runtime.settings, runtime.manifest
    predict = schema.body_type(use_case.Request, "PredictRequest", settings.max_rows)
    score = schema.body_type(score_row, "ScoreRequest", settings.max_rows)
    types = [predict, score, schema.PredictResponse, schema.ScoreResponse, schema.ErrorResponse]
    (_, *_), components = msgspec.json.schema_components(types, ref_template=_REFS, schema_hook=_raw)
    for name in ("PredictResponse", "ScoreResponse"):
        components[name]["properties"]["model"] = {"$ref": _REFS.format(name="ModelInfo")}
    components["ModelInfo"] = msgspec.json.schema_components([schema.ModelInfo], ref_template=_REFS)[1]["ModelInfo"]
    info = msgspec.to_builtins(runtime.info)
    about = {**runtime.about, "replica": "host:1"}
    request_id = "8f14e45fceea167a5a36dedd4bea2543"
    degraded = [f"{view.name}: missing" for view in runtime.plan.views[:1]]
    decision = runtime.model.decision(manifest.fallback_score)
    predicted = {
        "request_id": request_id,
        "model": info,
        "horizon_min": manifest.horizon_min,
        "degraded": bool(degraded),
        "predictions": [
            {
                "entity_id": use_case.entity_id(use_case.EXAMPLE),
                "score": manifest.fallback_score,
                "decision": decision,
                "degraded": degraded,
            }
        ],
    }
    scored = {
        "request_id": request_id,
        "model": info,
        "predictions": [{"score": manifest.fallback_score, "decision": decision}],
    }
    vector = {feature.name: feature.default for feature in manifest.features}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Flightdeck predictor: {settings.model_name}",
            "version": settings.model_version,
            "description": (
                f"Model `{settings.model_name}` version {settings.model_version}, sha256 `{settings.model_sha256}`, "
                f"feature service `{manifest.feature_service}`. A score is a {manifest.unit}, made to be asked "
                f"{manifest.horizon_min} minutes ahead. Every answer carries `x-request-id`; send your own to choose."
            ),
        },
        "paths": {
            "/v1/predict": {
                "post": _post(
                    summary="Predict rows",
                    text="Features come from the online store; `degraded` says what was wrong with them.",
                    body="PredictRequest",
                    example={"rows": [msgspec.to_builtins(use_case.EXAMPLE)]},
                    answer="PredictResponse",
                    answered=predicted,
                    errors=_ERRORS | _REJECTED,
                )
            },
            "/v1/score": {
                "post": _post(
                    summary="Score full feature vectors",
                    text="No lookup; null is a value that is not known and gets the training median, as in training.",
                    body="ScoreRequest",
                    example={"rows": [vector]},
                    answer="ScoreResponse",
                    answered=scored,
                    errors=_ERRORS,
                )
            },
            "/v1/model": {"get": _get("What answers here: model, features, code.", {**info, **about})},
            "/v1/manifest": {
                "get": {
                    "summary": "The artefact's manifest, to the byte: its sha256 is the model's.",
                    "responses": {"200": {"description": "JSON."}},
                }
            },
            "/healthz": {"get": _get("The process lives.", {"status": "ok"})},
            "/readyz": {
                "get": _get(
                    "Ready: the model is loaded and the process is not draining (else 503).",
                    {
                        "ready": True,
                        "draining": False,
                        "model": info,
                        **about,
                        "feature_store_reachable": True,
                        "feature_registry": "3f2a91c0",
                    },
                )
            },
            "/metrics": {
                "get": {"summary": "Prometheus metrics.", "responses": {"200": {"description": "Text 0.0.4."}}}
            },
            "/openapi.json": {"get": {"summary": "This document.", "responses": {"200": {"description": "JSON."}}}},
            "/docs": {"get": {"summary": "This document as a page.", "responses": {"200": {"description": "HTML."}}}},
        },
        "components": {"schemas": components},
    }


def _raw(kind: type[Any]) -> dict[str, Any]:
    if kind is msgspec.Raw:
        return {}
    raise NotImplementedError(kind)


def _post(
    *,
    summary: str,
    text: str,
    body: str,
    example: Any,
    answer: str,
    answered: Any,
    errors: Mapping[int, tuple[str, tuple[str, str, str | None]]],
) -> dict[str, Any]:
    def refused(error: tuple[str, str, str | None]) -> dict[str, Any]:
        named = dict(zip(("code", "message", "field"), error, strict=True))
        return _content("ErrorResponse", {"error": named, "request_id": answered["request_id"]})

    return {
        "summary": summary,
        "description": text,
        "parameters": [
            {
                "name": "x-request-id",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
            }
        ],
        "requestBody": {"required": True, "content": _content(body, example)},
        "responses": {
            "200": {"description": "One answer per row, in order.", "content": _content(answer, answered)},
            **{str(status): {"description": why, "content": refused(error)} for status, (why, error) in errors.items()},
        },
    }


def _get(summary: str, example: Any) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {"application/json": {"example": example}}}},
    }


def _content(name: str, example: Any) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFS.format(name=name)}, "example": example}}


def inputs(manifest: ModelManifest) -> list[tuple[str, str, str, str, str]]:
    """The model's inputs as rows of text: feature, view, training median, oldest age, policy."""
    rows = []
    for feature in manifest.features:
        policy = manifest.views.get(feature.view) if feature.source == "stored" else None
        served = ("", "") if policy is None else (f"{policy.max_age_s / 3600:g} h", policy.on_missing.value)
        rows.append((feature.name, feature.view, f"{feature.default:.6g}", *served))
    return rows


def page(api: dict[str, Any], features: Sequence[Sequence[str]]) -> str:
    """`api` and the rows of `inputs` as one HTML page: nothing from elsewhere; POST routes can be tried on it."""
    parts = []
    for path, methods in api["paths"].items():
        for method, about in methods.items():
            parts.append(_operation(path, method, about))
    schemas = "".join(
        f"<details id='{html.escape(name)}'><summary>{html.escape(name)}</summary><pre>{_pretty(about)}</pre></details>"
        for name, about in api["components"]["schemas"].items()
    )
    table = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in features
    )
    title = html.escape(api["info"]["title"])
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>"
        f"<style>{_STYLE}</style></head><body><main><h1>{title} "
        f"<small>version {html.escape(api['info']['version'])}</small></h1>"
        f"<p>{_prose(api['info']['description'])}</p><p><a href='/openapi.json'>openapi.json</a> · "
        f"<a href='/readyz'>readyz</a> · <a href='/metrics'>metrics</a></p>{''.join(parts)}"
        f"<h2>Inputs of the model</h2><div class='wide'><table><thead><tr><th>Feature</th><th>View</th>"
        f"<th>Training median</th><th>Oldest</th><th>When missing</th></tr></thead><tbody>{table}</tbody></table></div>"
        f"<h2>Schemas</h2>{schemas}</main>"
        f"<script>{_SCRIPT}</script></body></html>"
    )


def _operation(path: str, method: str, about: dict[str, Any]) -> str:
    body = about.get("requestBody", {}).get("content", {}).get("application/json")
    tried = ""
    if body:
        example = html.escape(json.dumps(body["example"], indent=2))
        lines = min(16, example.count("\n") + 1)
        tried = (
            f"<form data-path='{html.escape(path)}'><label>Body"
            f"<textarea rows='{lines}' spellcheck='false'>{example}</textarea>"
            "</label><button>Send</button><pre class='answer' hidden></pre></form>"
        )
    answers = "".join(
        f"<details><summary><b>{html.escape(status)}</b> {_prose(answer['description'])}</summary>"
        f"<pre>{_pretty(answer.get('content', {}).get('application/json', {}).get('example', ''))}</pre></details>"
        for status, answer in about["responses"].items()
    )
    return (
        f"<section><h2><b class='{method}'>{method.upper()}</b> <code>{html.escape(path)}</code></h2>"
        f"<p>{_prose(about['summary'].rstrip('.'))}. {_prose(about.get('description', ''))}</p>"
        f"{tried}{answers}</section>"
    )


def _pretty(value: Any) -> str:
    return html.escape(json.dumps(value, indent=2) if not isinstance(value, str) else value)


def _prose(text: str) -> str:
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f6f7f9;color:#1b1f24}
main{max-width:60rem;margin:auto;padding:1rem}
section,details{background:#fff;border:1px solid #d5dae1;border-radius:.5rem;padding:.5rem 1rem;margin:.5rem 0}
section details{border:0;padding:0}
h2{font-size:1.1rem;margin:.5rem 0}h2 code{font-size:1.05rem}p{margin:.4rem 0}
small{color:#59636e}summary{cursor:pointer}
pre,textarea,code{font:13px/1.4 ui-monospace,monospace}pre{overflow:auto}code{overflow-wrap:anywhere}
textarea{width:100%;box-sizing:border-box}button{padding:.3rem 1rem;margin:.3rem 0}
h2 b{font-size:.8rem;padding:.15rem .5rem;border-radius:.3rem;color:#fff;background:#1f6f43}
h2 b.post{background:#1f5fbf}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;background:#fff;font-size:.9rem}
th,td{text-align:left;padding:.25rem .75rem;border:1px solid #d5dae1}td:nth-child(3),td:nth-child(4){text-align:right}
@media(prefers-color-scheme:dark){body{background:#14171b;color:#e6e9ed}section,details,table{background:#1d2126;
border-color:#363c44}th,td{border-color:#363c44}a{color:#7db7ff}textarea{background:#14171b;color:inherit}small{color:#9aa4af}}
"""
_SCRIPT = """
for (const form of document.querySelectorAll('form')) form.addEventListener('submit', async event => {
  event.preventDefault();
  const shown = form.querySelector('.answer');
  shown.hidden = false;
  try {
    const answer = await fetch(form.dataset.path, {method: 'POST', headers: {'content-type': 'application/json'},
      body: form.querySelector('textarea').value});
    shown.textContent = answer.status + '\\n' + JSON.stringify(await answer.json(), null, 2);
  } catch (error) { shown.textContent = String(error); }
});
"""
