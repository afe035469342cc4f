"""HTML from a template, and a file of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).with_name("templates")


def page(template: str, content: Mapping[str, object], *folders: Path) -> str:
    """A template, filled; what comes from outside is escaped.

    Args:
        folders: to look for templates in, before those of this package.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template(template).render(content)


def write_page(path: Path, content: str) -> Path:
    """In one move, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)
    return path
