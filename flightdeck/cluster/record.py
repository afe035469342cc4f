"""What `cluster up` made, per context, in the state folder: `cluster down` takes away exactly that."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path


@dataclasses.dataclass
class Record:
    """Of one context.

    Args:
        made_cluster: the cluster itself.
        made_registry: the local registry's container, which clusters of this machine share.
        made_gateway: Envoy Gateway.
        made_namespaces: ours were not there before.
    """

    context: str
    made_cluster: bool = False
    made_registry: bool = False
    made_gateway: bool = False
    made_namespaces: bool = False

    @property
    def made_any(self) -> bool:
        """Whether there is anything to take away."""
        return self.made_cluster or self.made_registry or self.made_gateway or self.made_namespaces


def path_of(state: Path) -> Path:
    """The file."""
    return state / "cluster.json"


def known(state: Path) -> dict[str, Record]:
    """By context, in the order in which they were worked on, the last one last; those where nothing was made left out.

    Raises:
        ValueError: the file is not what was written there: what was made must not be forgotten for that.
    """
    path = path_of(state)
    if not path.is_file():
        return {}
    try:
        found = [Record(**item) for item in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a record of `make up` ({error}); mend it, or move it away") from error
    return {item.context: item for item in found if item.made_any}


def read(state: Path, context: str) -> Record:
    """What is known of one context; an empty record when nothing is."""
    return known(state).get(context) or Record(context)


def write(state: Path, record: Record) -> None:
    """Keep it, whole or not at all, beside those of other contexts."""
    others = known(state)
    others.pop(record.context, None)
    _replace(state, [*others.values(), record])


def forget(state: Path, context: str) -> None:
    """Nothing is left there."""
    left = known(state)
    left.pop(context, None)
    if left:
        _replace(state, list(left.values()))
    else:
        path_of(state).unlink(missing_ok=True)


def _replace(state: Path, records: list[Record]) -> None:
    state.mkdir(parents=True, exist_ok=True)
    draft = path_of(state).with_suffix(".draft")
    draft.write_text(json.dumps([dataclasses.asdict(item) for item in records], indent=2))
    draft.replace(path_of(state))
