"""Entry point of the hook pre-receive: nothing gets in that did not pass CI."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from flightdeck.delivery.remote import commands, environment, place, refusal
from flightdeck.delivery.remote.export import ExportFailed, ask, export, look
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


def pre_receive(bare: Path, lines: Iterable[str]) -> int:
    """0 lets every ref of the push in, 1 none of them."""
    here, pushed_at = Place(bare), time.time()
    settings = here.settings()
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
    for item in wanted:
        if not _passes(here, settings, item, pushed_at):
            return 1
    if wanted:
        say("CI passed: git takes the push")
    return 0


def _wanted(update: Update, found: Found) -> _Wanted:
    assert found.commit is not None
    assert found.tree is not None
    return _Wanted(update, found.commit, found.tree)


def key_of(tree: str, card: Path) -> str:
    """A tree is judged beside a champion: another champion, another judgement."""
    named = os.environ.get("FLIGHTDECK_CHAMPION_CARD", "")
    beside = hashlib.sha256(named.encode() + (card.read_bytes() if card.is_file() else b"")).hexdigest()[:12]
    return f"{tree}-{beside}"


def _passes(here: Place, settings: Settings, item: _Wanted, pushed_at: float) -> bool:
    told = False

    def waits(waited_s: float) -> bool:
        nonlocal told
        if not told:
            say("another push's CI runs; this one waits for it (ctrl-C gives up, and changes nothing)")
            told = True
        return waited_s < settings.ci_limit_s

    with held(here.lock(SLOT), waits=waits) as lock:
        if lock is None:
            say(
                f"refused: another push's CI held the machine for {settings.ci_limit_s / 60:.0f} minutes; "
                "nothing changed; push again"
            )
            return False
        if (ask("rev-parse", "--verify", "--quiet", item.update.ref, cwd=here.bare) or "") != (
            "" if item.update.creates else item.update.old
        ):
            say(
                f"refused: {item.update.name} moved while this push waited; nothing changed; "
                "`git fetch`, rebase, push again"
            )
            return False
        passed = here.passed(key_of(item.tree, here.card))
        before = place.read(passed)
        if before:
            say(
                f"{item.update.name} at {item.commit[:9]}: this very tree passed CI before "
                f"({before.get('how')}, {before.get('took_s', 0):.0f} s); not run again"
            )
            _remember(here, item, pushed_at, [("CI: passed before", 0.0)])
            return True
        return _ci(here, settings, item, pushed_at, lock=lock, passed=passed)


def _ci(here: Place, settings: Settings, item: _Wanted, pushed_at: float, *, lock: IO[str], passed: Path) -> bool:
    tree, state = here.tree(SLOT), here.root / SLOT / "state"
    log = here.logs / f"ci-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{item.commit[:9]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    place.prune(here.logs, place.LOGS_KEPT)
    shutil.rmtree(state, ignore_errors=True)
    try:
        export(
            here.bare,
            tree,
            commit=item.commit,
            update=item.update,
            base=ask("rev-parse", "--verify", "--quiet", MAIN, cwd=here.bare),
        )
    except (ExportFailed, OSError) as error:
        say(f"refused: {item.commit[:9]} could not be exported for CI, nothing changed: {error}")
        return False
    argv, how = commands.ci(tree)
    waited_s = time.time() - pushed_at
    say(f"CI of {item.update.name} at {item.commit[:9]}: {how}, in an export of its own; log {log}")
    env = environment.clean(os.environ, **commands.variables(here.card, state, publishes=False))
    ended = run(argv, cwd=tree, env=env, limit_s=settings.ci_limit_s, grace_s=_GRACE_S, log=log, holds=lock)
    outcomes = list(place.outcomes(state))
    for outcome in outcomes:
        for reason in outcome.get("not_run") or ():
            say(f"NOT RUN in {outcome['gate']}: {reason}")
    if ended.code:
        _refuse(
            item,
            refusal.why(
                code=ended.code, took_s=ended.took_s, outcomes=outcomes, last=ended.last, limit_s=settings.ci_limit_s
            ),
            log,
        )
        return False
    place.write(
        passed, {"commit": item.commit, "ref": item.update.ref, "how": how, "took_s": ended.took_s, "at": time.time()}
    )
    _remember(here, item, pushed_at, [("push and export", waited_s), *_stages(outcomes, ended.took_s)])
    return True


def _stages(outcomes: Sequence[dict[str, Any]], took_s: float) -> list[tuple[str, float]]:
    return [(stage.name, stage.took_s) for stage in gates(outcomes, took_s)]


def _remember(here: Place, item: _Wanted, pushed_at: float, stages: list[tuple[str, float]]) -> None:
    place.write(here.push(item.commit), {"pushed_at": pushed_at, "ref": item.update.ref, "stages": stages})
    place.prune(here.push(item.commit).parent, place.PUSHES_KEPT)


def _refuse(item: _Wanted, lines: list[str], log: Path) -> None:
    say("")
    say(f"refused: {item.update.name} at {item.commit[:9]} does not pass CI; nothing changed, nothing is deployed")
    for line in lines:
        say(f"  {line}")
    say(f"  the whole log: {log}")
