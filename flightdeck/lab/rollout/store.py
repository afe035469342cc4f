"""Adapter: the files of each rollout under <state>/rollouts/<name>/, shared by the controller and the command line.

Either may be killed at any moment. A file is replaced whole (written, synced, renamed) or grows by whole lines; a line
that a kill tore is cut off before the next one. Only people write wanted.yaml, orders and applied; the rest is the
controller's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import ModelRollout, load_rollout, to_yaml
from services.rollout_operator.plan import Order, Transition, dec_hook, enc_hook
from services.rollout_operator.remembered import KeptEvidence, Look, Status

__all__ = ["AppliedEntry", "BrokenFile", "Look", "NoRollout", "Status", "Store"]

T = TypeVar("T")
Applied = Literal["created", "configured", "unchanged"]
WANTED, STATUS, EVIDENCE = "wanted.yaml", "status.json", "evidence.msgpack"
ORDERS, APPLIED, HISTORY, LOOKS = "orders.jsonl", "applied.jsonl", "history.jsonl", "looks.jsonl"
OLDER_LOOKS = "looks.1.jsonl"
LOOKS_BYTES = 64 * 2**20  # about 5 hours of looks, one a second; as much again in the older file


class NoRollout(FileNotFoundError):
    """There is no rollout of this name; the message names those that there are."""


class BrokenFile(ValueError):
    """A file of the store is not what was written there: edited by hand, or by another version."""


class AppliedEntry(msgspec.Struct, frozen=True):
    """A person or a pipeline set the wanted state."""

    at_s: float
    who: str
    what: Applied
    release: Release
    note: str = ""


class _Numbered(msgspec.Struct, frozen=True):
    number: int
    at_s: float
    order: Order


@dataclasses.dataclass(frozen=True)
class Store:
    """All rollouts of a state folder."""

    root: Path

    def names(self) -> list[str]:
        """Of the rollouts that were applied, sorted."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{WANTED}"))

    def served(self) -> str | None:
        """The rollout that has the lab's one gateway: the first that was applied."""
        applied = {name: entries[0].at_s for name in self.names() if (entries := self.applied(name))}
        return min(applied, key=lambda name: applied[name], default=None)

    # What people want

    def apply(self, rollout: ModelRollout, who: str, note: str = "") -> Applied:
        """Set the wanted state; returns what that changed."""
        folder = self.root / rollout.metadata.name
        folder.mkdir(parents=True, exist_ok=True)
        with _only(folder):
            path = folder / WANTED
            if path.is_file() and path.read_text() == to_yaml(rollout):
                return "unchanged"
            what: Applied = "configured" if path.is_file() else "created"
            _append(folder / APPLIED, [AppliedEntry(time.time(), who, what, rollout.spec.release, note)])
            _write(path, to_yaml(rollout).encode())  # last: what is wanted was always told
        return what

    def wanted(self, name: str) -> ModelRollout:
        """What was applied last.

        Raises:
            NoRollout: nothing was. InvalidRollout: the file was edited by hand and breaks the schema.
        """
        return load_rollout(self._folder(name) / WANTED)

    def applied(self, name: str) -> list[AppliedEntry]:
        """Who applied what, oldest first."""
        return _lines(self._folder(name) / APPLIED, AppliedEntry)

    def order(self, name: str, order: Order) -> int:
        """Keep an order for the controller; returns its number, counted from 1.

        Raises:
            NoRollout: there is none of this name.
        """
        folder = self._folder(name)
        with _only(folder):
            before = _lines(folder / ORDERS, _Numbered)
            number = before[-1].number + 1 if before else 1
            _append(folder / ORDERS, [_Numbered(number, time.time(), order)])
        return number

    def orders_after(self, name: str, number: int) -> list[tuple[int, Order]]:
        """Orders with a higher number, oldest first."""
        return [(it.number, it.order) for it in _lines(self._folder(name) / ORDERS, _Numbered) if it.number > number]

    def stopped(self, name: str) -> None:
        """The lab has one rollout: an abort stops them all."""

    # What the controller tells

    def write_status(self, status: Status) -> None:
        """Replace the status.

        Raises:
            NoRollout: there is none of this name.
        """
        _write(self._folder(status.name) / STATUS, msgspec.json.encode(status, enc_hook=enc_hook))

    def read_status(self, name: str) -> Status | None:
        """The last status; None before the first.

        Raises:
            NoRollout: there is none of this name. BrokenFile: never taken for None, that would forget the champion.
        """
        path = self._folder(name) / STATUS
        try:
            return msgspec.json.decode(path.read_bytes(), type=Status, dec_hook=dec_hook)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, ValueError) as error:
            raise BrokenFile(f"{path}: not a status of this version: {error}") from error

    def record(self, name: str, transitions: Sequence[Transition]) -> None:
        """Add to the history; what is there already is not written again.

        Call it before `write_status`: a kill between the two leaves entries of a decision that is taken anew, perhaps
        otherwise. The new entries then take the place of the old ones with the same serials.
        """
        before = set(self.history(name))
        _append(self._folder(name) / HISTORY, [it for it in transitions if it not in before])

    def history(self, name: str) -> list[Transition]:
        """All that took effect, oldest first."""
        kept: list[Transition] = []
        for entry in _lines(self._folder(name) / HISTORY, Transition):
            while kept and kept[-1].serial >= entry.serial:
                kept.pop()
            kept.append(entry)
        return kept

    def look(self, name: str, look: Look) -> None:
        """Keep a look of the judge; of very many the oldest go."""
        folder = self._folder(name)
        path = folder / LOOKS
        if path.is_file() and path.stat().st_size >= LOOKS_BYTES:
            path.replace(folder / OLDER_LOOKS)
        _append(path, [look], sync=False)

    def looks(self, name: str) -> list[Look]:
        """All that are kept, oldest first."""
        folder = self._folder(name)
        return [*_lines(folder / OLDER_LOOKS, Look), *_lines(folder / LOOKS, Look)]

    def save_evidence(self, name: str, started_s: float, cursors: dict[str, str], dump: bytes) -> None:
        """Keep the evidence of the rollout that began at `started_s`, in one move with the stream cursors."""
        _write(self._folder(name) / EVIDENCE, msgspec.msgpack.encode(KeptEvidence(started_s, cursors, dump)))

    def load_evidence(self, name: str) -> KeptEvidence | None:
        """None without one, or when another version wrote it: then evidence begins anew."""
        path = self._folder(name) / EVIDENCE
        try:
            return msgspec.msgpack.decode(path.read_bytes(), type=KeptEvidence)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _folder(self, name: str) -> Path:
        names = self.names()
        if name not in names:
            there = f"there are: {', '.join(names)}" if names else "there are none yet; see `flightdeck rollout apply`"
            raise NoRollout(f"no rollout {name!r} in {self.root}; {there}")
        return self.root / name


@contextlib.contextmanager
def _only(folder: Path) -> Iterator[None]:
    """One writer at a time among the people; the system lets go of the lock when its process dies."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: bytes) -> None:
    """Replace a file whole. Each writer has its own temporary file; one that a kill left behind is written over."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _append(path: Path, items: Sequence[msgspec.Struct], *, sync: bool = True) -> None:
    """Add lines behind the last whole one."""
    if not items:
        return
    new = not path.exists()
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(b"".join(msgspec.json.encode(item, enc_hook=enc_hook) + b"\n" for item in items))
        if sync:
            file.flush()
            os.fsync(file.fileno())
    if new and sync:
        _sync_folder(path.parent)


def _lines(path: Path, kind: type[T]) -> list[T]:
    """The whole lines; what follows the last line end is still being written, or was torn."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind, dec_hook=dec_hook)
    found = []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(msgspec.DecodeError, ValueError):  # of another version; the others still count
            found.append(decoder.decode(line))
    return found


def _sync_folder(folder: Path) -> None:
    """So that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
