"""Entry point of the hook pre-receive: nothing gets in that did not pass CI."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from flightdeck.delivery.remote import commands, environment, place, refusal
from flightdeck.delivery.remote.export import ExportFailed, ask, empty, export, look
from flightdeck.delivery.remote.leadtime import gates
from flightdeck.delivery.remote.place import Place, Settings
from flightdeck.delivery.remote.running import held, run, say
from flightdeck.delivery.remote.updates import MAIN, Found, Kind, Update, parse, rule, too_many

SLOT = "ci"
_GRACE_S = 10.0  # what CI starts has no cluster to tidy up but kind, which its own `make down` does


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """An update whose tree must have passed."""

    update: Update
    commit: str
    tree: str


@dataclasses.dataclass(frozen=True)
class _Push:
    """What is the same for all refs of one push."""

    here: Place
    settings: Settings
    pushed_at: float
    labels: tuple[str, ...]


def pre_receive(bare: Path, lines: Iterable[str]) -> int:
    """0 lets every ref of the push in, 1 none of them."""
    here, pushed_at = Place(bare), time.time()
    push = _Push(here, here.settings(), pushed_at, labels(os.environ))
    judged = [(update, look(update, bare)) for update in parse(lines)]
    rulings = [(update, found, rule(update, found)) for update, found in judged]
    refused = [ruling.refused for _, _, ruling in rulings if ruling.refused]
    wanted = [_wanted(update, found) for update, found, ruling in rulings if ruling.checks]
    wanted.sort(key=lambda item: item.update.kind is not Kind.MAIN)
    refused += [words] if (words := too_many(sorted({item.tree for item in wanted}))) else []
    for words in refused:
        say(f"refused: {words}")
    if refused:
        say("nothing changed: no ref moved, nothing runs")
        return 1
    for _, _, ruling in rulings:
        for sentence in ruling.says:
            say(sentence)
    if not all(_passes(push, item) for item in wanted):
        return 1
    if wanted:
        say("CI passed: git takes the push")
    return 0


def labels(found: Mapping[str, str]) -> tuple[str, ...]:
    """Those that `git push -o label=NAME` gave: what a label of a pull request is on GitHub."""
    count = int(found.get("GIT_PUSH_OPTION_COUNT") or 0)
    options = [found.get(f"GIT_PUSH_OPTION_{number}", "") for number in range(count)]
    return tuple(sorted({it.removeprefix("label=") for it in options if it.startswith("label=")}))


def _wanted(update: Update, found: Found) -> _Wanted:
    assert found.commit is not None
    assert found.tree is not None
    return _Wanted(update, found.commit, found.tree)


def key_of(tree: str, card: Path, given: Sequence[str]) -> str:
    """A tree is judged beside a champion and under labels: with others it is judged again."""
    named = os.environ.get(commands.CARD_ENV, "")
    beside = hashlib.sha256(json.dumps([named, *given]).encode() + (card.read_bytes() if card.is_file() else b""))
    return f"{tree}-{beside.hexdigest()[:12]}"


def _passes(push: _Push, item: _Wanted) -> bool:
    told = False

    def waits(waited_s: float) -> bool:
        nonlocal told
        if not told:
            say("another push's CI runs; this one waits for it (ctrl-C gives up, and changes nothing)")
            told = True
        return waited_s < push.settings.ci_limit_s

    with held(push.here.lock(SLOT), waits=waits) as lock:
        if lock is None:
            say(
                f"refused: another push's CI held the machine for {push.settings.ci_limit_s / 60:.0f} minutes; "
                "nothing changed; push again"
            )
            return False
        now = ask("rev-parse", "--verify", "--quiet", item.update.ref, cwd=push.here.bare) or ""
        if now != ("" if item.update.creates else item.update.old):
            say(f"refused: {item.update.name} moved while this push waited; nothing changed")
            say("  do: git fetch, rebase, push again")
            return False
        passed = push.here.passed(key_of(item.tree, push.here.card, push.labels))
        if before := place.read(passed):
            say(
                f"{item.update.name} at {item.commit[:9]}: this very tree passed CI before "
                f"({before.get('how')}, {before.get('took_s', 0):.0f} s); not run again"
            )
            _remember(push, item, [("CI: passed before", 0.0)])
            return True
        return _ci(push, item, lock, passed)


def _ci(push: _Push, item: _Wanted, lock: IO[str], passed: Path) -> bool:
    here, limit_s = push.here, push.settings.ci_limit_s
    tree, state = here.tree(SLOT), here.root / SLOT / "state"
    log = here.log(SLOT, item.commit)
    base = ask("rev-parse", "--verify", "--quiet", MAIN, cwd=here.bare)
    try:
        empty(state, keep=(commands.ACT_HOME,))
        empty(state / commands.ACT_HOME, keep=(commands.ACT_KEPT,))  # no word of an earlier run may speak for this one
        export(here.bare, tree, commit=item.commit, update=item.update, base=base)
    except (ExportFailed, OSError) as error:
        say(f"refused: {item.commit[:9]} could not be exported for CI, nothing changed: {error}")
        return False
    told = {**commands.variables(here.card, state, publishes=False), **commands.apart(state.parent)}
    argv, how = commands.ci(tree, base=base, told=told, labels=push.labels)
    waited_s = time.time() - push.pushed_at
    say(f"CI of {item.update.name} at {item.commit[:9]}: {how}, in an export of its own; log {log}")
    if left_out := told.get(commands.E2E_LEFT_OUT):
        say(f"NOT RUN: the e2e gate: {left_out}")
    env = environment.clean(os.environ, **told)
    first = commands.first_look(tree, state, env, act=argv[0] != "make")
    took_s = 0.0
    for step in ([first] if first else []) + [argv]:
        ended = run(
            step, cwd=tree, env=env, limit_s=limit_s - took_s, grace_s=_GRACE_S, log=log, holds=lock,
            enough=lambda: refusal.enough(commands.outcomes(state)),
        )  # fmt: skip
        took_s += ended.took_s
        if ended.code:
            break
    outcomes = list(commands.outcomes(state))
    for outcome in outcomes:
        for reason in outcome.get("not_run") or ():
            say(f"NOT RUN in {outcome['gate']}: {reason}")
    if ended.code:
        say("")
        say(f"refused: {item.update.name} at {item.commit[:9]} does not pass CI; nothing changed, nothing is deployed")
        for line in refusal.why(code=ended.code, took_s=took_s, outcomes=outcomes, last=ended.last, limit_s=limit_s):
            say(f"  {line}")
        say(f"  turned back after {time.time() - push.pushed_at:.0f} s; the whole log: {log}")
        return False
    place.write(passed, {"commit": item.commit, "ref": item.update.ref, "how": how, "took_s": took_s})
    stages = [(stage.name, stage.took_s) for stage in gates(outcomes, took_s)]
    _remember(push, item, [("push and export", waited_s), *stages])
    return True


def _remember(push: _Push, item: _Wanted, stages: list[tuple[str, float]]) -> None:
    file = push.here.push(item.commit)
    place.write(file, {"pushed_at": push.pushed_at, "ref": item.update.ref, "stages": stages})
    place.prune(file.parent, place.PUSHES_KEPT)
