"""The gates as bars of time, green or red: an SVG kept beside the comment, which cannot carry a picture itself."""

from __future__ import annotations

import html
from collections.abc import Sequence

from flightdeck.delivery.comment import Context, minutes, sign
from flightdeck.delivery.outcome import Outcome

COLOURS = {"✓": "#2f7d4f", "✗": "#b3261e", "-": "#999", "…": "#999"}
ROW_PX, NAME_PX, BAR_PX, WORDS_PX = 26, 120, 420, 100


def bars(outcomes: Sequence[Outcome], context: Context) -> str:
    """One bar for each gate, as long as it took."""
    longest_s = max((it.took_s for it in outcomes), default=0.0) or 1.0
    height = ROW_PX * (len(outcomes) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{NAME_PX + BAR_PX + WORDS_PX}" height="{height}" '
        'font-family="sans-serif" font-size="13" role="img">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="8" y="17">Gates of {html.escape(context.commit[:12])}: what each took</text>',
    ]
    for row, outcome in enumerate(outcomes, start=1):
        it = sign(outcome.gate, outcome, context)
        wide = max(2.0, BAR_PX * outcome.took_s / longest_s)
        y = ROW_PX * row
        lines += [
            f'<text x="8" y="{y + 17}">{it} {html.escape(outcome.gate[:14])}</text>',
            f'<rect x="{NAME_PX}" y="{y + 5}" width="{wide:.0f}" height="16" rx="3" fill="{COLOURS[it]}"/>',
            f'<text x="{NAME_PX + wide + 6:.0f}" y="{y + 17}" fill="#555">{minutes(outcome.took_s)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
