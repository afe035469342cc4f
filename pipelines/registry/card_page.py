"""The report page of a candidate: one self-contained HTML file, no script, no outside address."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping

from flightdeck.contracts.card import Interval, ModelCard
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.model_spec import ModelSpec

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2733;max-width:1080px;margin:24px auto;padding:0 16px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:28px 0 8px;border-bottom:1px solid #dde3ea}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:left;padding:4px 8px;border-bottom:1px solid #eceff3;
vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font-size:12px;word-break:break-all}
.v{display:inline-block;padding:1px 8px;border-radius:3px;color:#fff;font-weight:600;font-size:12px}
.PROMOTE{background:#1f7a4d}.HOLD{background:#a86b00}.REJECT{background:#b3261e}
.why{border-left:4px solid #8795a5;padding:6px 12px;background:#f6f8fa;margin:12px 0}.muted{color:#5b6b7c}
figure{display:inline-block;margin:6px 12px 6px 0;vertical-align:top}img{max-width:100%}
@media (max-width:700px){table{display:block;overflow-x:auto}}
"""


def _escape(value: object) -> str:
    return html.escape(str(value))


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"


def _badge(verdict: Verdict) -> str:
    return f'<span class="v {verdict.value}">{verdict.value}</span>'


def _interval(found: Interval | None) -> str:
    if found is None or found.value is None:
        return "n/a"
    return f"{_number(found.value)} <span class=muted>[{_number(found.low)}, {_number(found.high)}]</span>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{_escape(item)}</th>" for item in head)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(content: str) -> str:
    return f"<td>{content}</td>"


def _n(content: str) -> str:
    return f'<td class="n">{content}</td>'


def _head(card: ModelCard) -> str:
    title = f"{_escape(card.model)} {_escape(card.version)}: {card.verdict.value}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
    )


def page(card: ModelCard, pictures: Mapping[str, bytes], spec: ModelSpec) -> str:
    """The whole page."""
    gates = _table(
        ("gate", "verdict", "measured", "margin", "reason"),
        (
            (_cell(_escape(item.gate)), _cell(_badge(item.verdict)), _n(_number(item.measured)),
             _n(_number(item.margin)), _cell(_escape(item.reason)))
            for item in card.gates
        ),
    )  # fmt: skip
    quality = _table(
        ("metric", "candidate", "baseline", f"champion {card.champion_version or '(none)'}"),
        (
            (_cell(_escape(name)), _n(_interval(value)), _n(_interval(card.metrics.get(f"baseline_{name}"))),
             _n(_interval(card.champion_metrics.get(name))))
            for name, value in card.metrics.items()
            if not name.startswith("baseline_")
        ),
    )  # fmt: skip
    slices = _table(
        ("slice", "value", "rows", "metric", "mean score minus mean outcome"),
        (
            (_cell(_escape(item.slice)), _cell(_escape(item.value)), _n(f"{item.rows:,}"), _n(_number(item.metric)),
             _n(_number(item.calibration_gap)))
            for item in card.slices
        ),
    )  # fmt: skip
    figures = "".join(
        f'<figure><img alt="{_escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}"></figure>'
        for name, content in pictures.items()
    )
    made = {
        "sha256": card.sha256,
        "trained on": f"{card.train_from:%Y-%m-%d} to {card.train_until:%Y-%m-%d}, {card.train_rows:,} rows",
        "holdout": f"{card.holdout_from:%Y-%m-%d} to {card.holdout_until:%Y-%m-%d}, {card.holdout_rows:,} rows",
        "horizon": f"{card.horizon_min} min before the event",
        "feature service": f"{card.feature_service}, {len(card.features)} features",
        "baseline": spec.baseline.description,
        "parameters": ", ".join(f"{key}={value}" for key, value in card.params.items()),
        "code": card.digests.git_commit,
        "lock": card.digests.lock_sha256,
        "spec": card.digests.spec_sha256,
        "feature export": card.digests.feature_export,
        "table versions": ", ".join(f"{key} {value}" for key, value in card.digests.table_versions.items()),
        "made": f"{card.created_at:%Y-%m-%d %H:%M:%SZ}",
    }
    facts = _table(
        ("what", ""), ((_cell(_escape(key)), _cell(f"<code>{_escape(value)}</code>")) for key, value in made.items())
    )
    return (
        f"{_head(card)}<body><h1>{_escape(card.model)} <span class=muted>version {_escape(card.version)}</span> "
        f"{_badge(card.verdict)}</h1>"
        f"<div class=muted>{_escape(card.purpose)}</div><div class=why>{_escape(card.reason)}</div>"
        f"<h2>Gates</h2>{gates}"
        f"<h2>Quality on the holdout, {spec.gates.confidence:.0%} intervals over whole days</h2>{quality}"
        f"<h2>Pictures</h2>{figures}<h2>Slices</h2>{slices}<h2>What it was made from</h2>{facts}</body></html>"
    )
