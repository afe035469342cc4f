"""What `cluster up` made, in the state folder: `cluster down` takes away exactly that."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path


@dataclasses.dataclass
class Record:
    """Of one context.

    Args:
        made_cluster: the kind cluster itself.
        made_registry: the local registry's container.
        made_gateway: Envoy Gateway.
    """

    context: str
    made_cluster: bool = False
    made_registry: bool = False
    made_gateway: bool = False


def path_of(state: Path) -> Path:
    """The file."""
    return state / "cluster.json"


def read(state: Path, context: str) -> Record:
    """What is known of this context; nothing when another context was worked on last."""
    found = last(state)
    return found if found and found.context == context else Record(context)


def last(state: Path) -> Record | None:
    """Of the context that was worked on last; None when nothing is known."""
    try:
        return Record(**json.loads(path_of(state).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write(state: Path, record: Record) -> None:
    """Keep it; whole or not at all."""
    state.mkdir(parents=True, exist_ok=True)
    draft = path_of(state).with_suffix(".draft")
    draft.write_text(json.dumps(dataclasses.asdict(record), indent=2))
    draft.replace(path_of(state))


def forget(state: Path) -> None:
    """Nothing is left."""
    path_of(state).unlink(missing_ok=True)
