"""Drawing for a page: inline SVG whose colours are CSS variables, so that one picture serves light and dark."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")

# Stand-ins that become CSS variables in the page: drawn colour -> variable.
INK, FAINT, PAPER, A, B, BAD = "#101010", "#a0a0a1", "#fefefe", "#1f5fa9", "#c8641f", "#c02f2f"
VARIABLES = {INK: "--ink", FAINT: "--faint", A: "--a", B: "--b", BAD: "--bad", PAPER: "--card"}
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10,
    "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.grid": True, "grid.color": FAINT, "grid.alpha": 0.25, "axes.axisbelow": True,
    "legend.frameon": False, "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip
WIDE, HALF = (11.0, 2.9), (5.6, 3.3)  # inches; the page shows them at about 1.3 times that


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element with CSS variables for colours and ids of its own."""
    out = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r'\1 role="img"', text, count=1)
    text = re.sub(r'\bid="(?!clip|p|m|h)[^"]*"', "", text)
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
