"""Values inside Markdown: shown as they are, never as markup, a link, a mention or a picture."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

LONGEST = 600  # characters of one value
INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
)
MARKUP = re.compile(r"[\\`*_{}\[\]()#+!|~^$-]")
ISSUE = re.compile(r"\bgh-(?=\d)", re.IGNORECASE)  # another way to name one
BREAK = "\u200b"  # behind @, # and GH- it keeps GitHub from notifying people and from linking issues


def plain(value: str, *, longest: int = LONGEST) -> str:
    """The value as one line of text that Markdown and GitHub leave alone."""
    text = INVISIBLE.sub(" ", value).strip()
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    text = ISSUE.sub(lambda found: found[0] + BREAK, text)
    # Letter by letter, so that no replacement is replaced again.
    return "".join(_letter(letter) for letter in text).replace("://", "&#58;//").replace("www.", "www&#46;")


def _letter(letter: str) -> str:
    if letter in "@#":
        return f"&#{ord(letter)};{BREAK}"
    return f"&#{ord(letter)};" if MARKUP.match(letter) else html.escape(letter)


def sentence(value: str, *, longest: int = LONGEST) -> str:
    """Like `plain`, but what stands between two backticks is shown as code."""
    pieces = INVISIBLE.sub(" ", value)[:longest].split("`")
    if len(pieces) % 2 == 0:  # an odd backtick: nothing is code
        return plain(value, longest=longest)
    return "".join(
        f"<code>{plain(piece)}</code>" if index % 2 else _spaced(piece) for index, piece in enumerate(pieces) if piece
    )


def _spaced(piece: str) -> str:
    """Plain, with the blanks around it kept."""
    return " " * piece.startswith(" ") + plain(piece) + " " * (piece.endswith(" ") and len(piece) > 1)


def table(rows: Sequence[Sequence[str]], *, most: int = 60) -> str:
    """Rows of cells, the first one is the head; what is beyond `most` rows is counted."""
    if not rows:
        return ""
    width = max(map(len, rows))
    lines = ["| " + " | ".join(sentence(cell, longest=200) for cell in [*row, *[""] * (width - len(row))]) + " |" for row in rows[: most + 1]]  # fmt: skip  # noqa: E501
    lines.insert(1, "|" + " --- |" * width)
    left = len(rows) - 1 - most
    return "\n".join(lines) + (f"\n\n{left} more rows are in the run's artefacts." if left > 0 else "")
