"""One page about one load test: the verdict and three plots. One file, drawn here, so that a Job needs no library."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from flightdeck.lab.users import Outcome, percentile
from flightdeck.load.plan import LoadPlan
from flightdeck.load.verdict import LoadVerdict

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 900, 220, 58, 30, 12
Line = tuple[str, str, list[tuple[float, float]]]  # name, CSS colour, points

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b2530; --soft: #586473; --line: #dfe3e8; --a: #1f5fa8;
  --b: #c8641e; --bad: #b92c2c; --good: #23803f; }
@media (prefers-color-scheme: dark) { :root { --paper: #12171e; --ink: #e6ebf1; --soft: #a3afbd; --line: #2c3642;
  --a: #6fa8ee; --b: #f0a05a; --bad: #f07878; --good: #63c083; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; margin-top: 1rem; }
th, td { text-align: left; padding: .4rem .7rem; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.ok { color: var(--good); font-weight: 600; } .miss { color: var(--bad); font-weight: 600; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
"""


def render(plan: LoadPlan, outcomes: Sequence[Outcome], verdict: LoadVerdict, *, title: str) -> str:
    """The page as HTML; nothing in it points outside of it."""
    rows = "".join(
        f"<tr><td>{_(it.name)}</td><td class=number>{_(it.found)}</td><td class=number>{_(it.limit)}</td>"
        f'<td class="{"ok" if it.ok else "miss"}">{"ok" if it.ok else "missed"}</td></tr>'
        for it in verdict.findings
    )
    notes = "".join(f"<li>{_(note)}</li>" for note in verdict.notes)
    word = '<span class="ok">met</span>' if verdict.ok else '<span class="miss">not met</span>'
    body = f"""<h1>Load: {_(title)}</h1>
<p class="soft">{plan.rate_per_s:g} requests a second for {plan.seconds:g} s to {_(plan.url)}; latency counts from the
intended start.</p><p>The limits were {word}.</p>
<table><thead><tr><th>figure</th><th class=number>found</th><th class=number>limit</th><th></th></tr></thead>
<tbody>{rows}</tbody></table>
<ul>{notes}</ul>{"".join(_plots(plan, outcomes)) if outcomes else ""}
<p class="soft">This page is one file and loads nothing.</p>"""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Load: {_(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _plots(plan: LoadPlan, outcomes: Sequence[Outcome]) -> list[str]:
    start_s = min(outcome.intended_s for outcome in outcomes)
    by_second: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        by_second.setdefault(int(outcome.intended_s - start_s), []).append(outcome)
    seconds = sorted(by_second)
    shares: list[Line] = []
    for name, colour, share in (("p99", "var(--b)", 0.99), ("p50", "var(--a)", 0.5)):
        points = [(float(second), _quantile(by_second[second], share)) for second in seconds]
        shares.append((name, colour, [(x, y) for x, y in points if y > 0]))
    failed = [(float(second), float(sum(not it.ok for it in by_second[second]))) for second in seconds]
    sent: dict[int, int] = {}
    for outcome in outcomes:
        at = int(outcome.sent_s - start_s)
        sent[at] = sent.get(at, 0) + 1
    rates: list[Line] = [
        ("asked", "var(--soft)", [(0.0, plan.rate_per_s), (plan.seconds, plan.rate_per_s)]),
        ("sent", "var(--a)", [(float(at), float(count)) for at, count in sorted(sent.items()) if at < plan.seconds]),
        ("failed", "var(--bad)", failed),
    ]
    ordered = sorted(max(0.1, outcome.latency_ms) for outcome in outcomes if outcome.ok)
    steps = [index / 200 for index in range(1, 200)] + [0.999]
    distribution: list[Line] = [
        ("latency", "var(--a)", [(100 * share, percentile(ordered, share)) for share in steps] if ordered else [])
    ]
    return [
        "<h2>Latency over time</h2>" + plot(shares, "seconds of the test", "ms", log=True),
        "<h2>Requests a second</h2>" + plot(rates, "seconds of the test", "1/s"),
        "<h2>Share of requests that were answered within</h2>" + plot(distribution, "per cent", "ms", log=True),
    ]


def _quantile(outcomes: Sequence[Outcome], share: float) -> float:
    return percentile([max(0.1, it.latency_ms) for it in outcomes if it.ok], share)


def plot(lines: Sequence[Line], across: str, up: str, *, log: bool = False) -> str:
    """Lines over a common axis as SVG. log: a logarithmic upward axis; all values must then be above 0."""
    points = [point for _name, _colour, own in lines for point in own]
    if not points:
        return '<p class="soft">nothing was answered</p>'
    right = max(x for x, _y in points) or 1.0
    values = [y for _x, y in points]
    low = 10 ** math.floor(math.log10(min(values))) if log else 0.0
    high = 10 ** math.ceil(math.log10(max(values) * 1.0001)) if log else (max(values) * 1.1 or 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        share = math.log(y / low) / math.log(high / low) if log else (y - low) / (high - low)
        return LEFT + (WIDTH - LEFT - 10) * x / right, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    marks = (
        [low * 10**power for power in range(round(math.log10(high / low)) + 1)]
        if log
        else [0.0, high / 2.2, high / 1.1]
    )
    parts = []
    for mark in marks:
        _x, y = place(0, mark)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - 10}" stroke="var(--line)"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_mark(mark)}</text>'
        )
    for number, (name, colour, own) in enumerate(lines):
        path = "L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in own)
        if path:
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(
            f'<text x="{WIDTH - 10 - 70 * number}" y="10" text-anchor="end" style="fill:{colour}">{_(name)}</text>'
        )
    for share in (0.0, 0.5, 1.0):
        x, _y = place(right * share, low if log else 0.0)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{right * share:.4g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 2}" text-anchor="middle">{_(across)}</text>')
    parts.append(f'<text x="{LEFT + 4}" y="{TOP - 2}">{_(up)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _mark(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _(text: str) -> str:
    return html.escape(text)
