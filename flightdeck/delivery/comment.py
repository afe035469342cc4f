"""Decision: what the one comment of a pull request says. A pure function from the gates' outcomes to Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from flightdeck.delivery.changes import JOBS
from flightdeck.delivery.markdown import plain, sentence, table
from flightdeck.delivery.outcome import Found, Outcome

MARKER = "<!-- flightdeck: the comment of CI -->"  # finds the comment again; nothing else begins with it
LIMIT_BYTES = 65_000  # GitHub takes 65,536 characters
GATES = ("check", *JOBS)
USERS = ("models", "features", "data", "images", "manifests")  # what these say is what changes for users
MOST = 25  # findings, sentences of one gate
SIGNS = {"success": "✓", "failure": "✗", "cancelled": "✗", "skipped": "-"}
COLOURS = {"✓": "ok", "✗": "bad", "-": "left", "…": "left"}


@dataclasses.dataclass(frozen=True)
class Context:
    """Where and when.

    Args:
        commit: full name.
        results: job -> success, failure, cancelled or skipped, as the workflow tells; empty outside of one.
        lead_time_s: since the commit.
        run_url: page of the run, with the logs; "" outside of a workflow.
    """

    commit: str
    results: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lead_time_s: float | None = None
    run_url: str = ""


def sign(gate: str, outcome: Outcome | None, context: Context) -> str:
    """✓ passed, ✗ refused or died, - not needed by this change, … did not report.

    The worse one of the gate's and the job's word counts.
    """
    job = SIGNS.get(context.results.get(gate, ""), "…")
    own = "…" if outcome is None else "✓" if outcome.found is Found.PASSED else "✗"
    if "✗" in (job, own):
        return "✗"
    return job if own == "…" else own


def minutes(seconds: float) -> str:
    """`40 s` or `12 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def comment(outcomes: Sequence[Outcome], context: Context) -> str:
    """The whole text, at most LIMIT_BYTES bytes; tables go first when it would be longer."""
    told = {outcome.gate: outcome for outcome in outcomes}
    gates = [*GATES, *sorted(set(told) - set(GATES))]
    signs = {gate: sign(gate, told.get(gate), context) for gate in gates}
    parts = [
        MARKER, _headline(signs), _to_do(told, signs), _users(told), _picture(signs, told), _gates(signs, told),
        _not_run(told), _times(told, context),
    ]  # fmt: skip
    text = "\n\n".join(part for part in parts if part)
    left = 0
    for gate in gates:
        for title, rows in (told[gate].tables if gate in told else {}).items():
            more = f"\n\n<details><summary>{plain(title)}</summary>\n\n{table(rows)}\n\n</details>"
            if _bytes(text) + _bytes(more) > LIMIT_BYTES - 200:
                left += 1
            else:
                text += more
    if left:
        text += f"\n\n{left} tables are too long for a comment; they are in the run's artefacts."
    return _cut(text) + "\n"


def _bytes(text: str) -> int:
    return len(text.encode())


def _cut(text: str) -> str:
    """Whole lines that fit."""
    if _bytes(text) < LIMIT_BYTES:
        return text
    kept = text.encode()[: LIMIT_BYTES - 100].decode(errors="ignore")
    return kept[: kept.rindex("\n")] + "\n\nThe rest is too long for a comment; it is in the run's artefacts."


def _headline(signs: Mapping[str, str]) -> str:
    bad = [gate for gate, it in signs.items() if it == "✗"]
    silent = [gate for gate, it in signs.items() if it == "…"]
    if bad:
        return f"## ✗ Refused by {', '.join(map(plain, bad))}"
    if silent:
        return f"## … Not yet heard of {', '.join(map(plain, silent))}"
    return "## ✓ Every gate that this change needs has passed"


def _to_do(told: Mapping[str, Outcome], signs: Mapping[str, str]) -> str:
    lines = []
    for gate, it in signs.items():
        findings = told[gate].findings if gate in told else ()
        lines += [f"- **{plain(gate)}**: {sentence(found.what)}<br>→ {sentence(found.do)}" for found in findings[:MOST]]
        if len(findings) > MOST:
            lines.append(f"- **{plain(gate)}**: {len(findings) - MOST} more, in its log")
        if it == "✗" and not findings:
            lines.append(f"- **{plain(gate)}**: ended before it could say why<br>→ look at the last lines of its log")
    return "### What to do\n\n" + "\n".join(lines) if lines else ""


def _users(told: Mapping[str, Outcome]) -> str:
    lines = [f"- {sentence(words)}" for gate in USERS if gate in told for words in told[gate].says[:MOST]]
    return "### What changes for users\n\n" + ("\n".join(lines) if lines else "Nothing that a gate could see.")


def _picture(signs: Mapping[str, str], told: Mapping[str, Outcome]) -> str:
    """The gates as a path, coloured; names are ours or reduced to letters, so no value can end the drawing."""
    nodes = []
    for index, (gate, it) in enumerate(signs.items()):
        name = "".join(letter for letter in gate if letter.isalnum() or letter in "-_ ")[:30]
        took = minutes(told[gate].took_s) if gate in told else "not needed" if it == "-" else "no word"
        nodes.append(f'  g{index}["{it} {name}<br/>{took}"]:::{COLOURS[it]}')
    first, *rest = range(len(nodes))
    arrows = [f"  g{first} --> g{index}" for index in rest]
    classes = ["ok fill:#dff3e4,stroke:#2f7d4f,color:#123", "bad fill:#fbe0e0,stroke:#b3261e,color:#311", "left fill:#eee,stroke:#999,color:#555"]  # fmt: skip  # noqa: E501
    return "\n".join(["```mermaid", "flowchart LR", *nodes, *arrows, *(f"  classDef {it}" for it in classes), "```"])


def _gates(signs: Mapping[str, str], told: Mapping[str, Outcome]) -> str:
    rows: list[tuple[str, ...]] = [("gate", "", "took", "run it")]
    for gate, it in signs.items():
        took = minutes(told[gate].took_s) if gate in told else "not needed by this change" if it == "-" else ""
        rows.append((gate, it, took, f"`make ci-{gate}`" if gate in GATES else ""))
    return table(rows)


def _not_run(told: Mapping[str, Outcome]) -> str:
    lines = [f"- **{plain(gate)}**: {sentence(why)}" for gate, it in told.items() for why in it.not_run[:MOST]]
    return "### What did not run\n\n" + "\n".join(lines) if lines else ""


def _times(told: Mapping[str, Outcome], context: Context) -> str:
    longest = sorted(told.values(), key=lambda it: -it.took_s)[:3]
    words = f"Commit {plain(context.commit[:12])}"
    if context.lead_time_s is not None:
        words += f"; lead time so far {minutes(context.lead_time_s)}, from the commit to this comment"
    if longest:
        words += "; longest: " + ", ".join(f"{plain(it.gate)} {minutes(it.took_s)}" for it in longest)
    return words + (f". [The run]({context.run_url}) has every log." if context.run_url else ".")
