"""Entry points of the hook post-receive and of the deploy that it starts: one commit of main at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from flightdeck.delivery.remote import commands, environment, place
from flightdeck.delivery.remote.export import ExportFailed, ask, export
from flightdeck.delivery.remote.leadtime import Stage, table
from flightdeck.delivery.remote.place import Place, Settings
from flightdeck.delivery.remote.running import held, pass_on, run, say, tell
from flightdeck.delivery.remote.updates import MAIN, Kind, Update, parse

_LOOK_S = 0.2
_MARGIN_S = 300.0  # beyond all limits: nobody's terminal waits for ever


def post_receive(bare: Path, lines: Iterable[str]) -> int:
    """Deploy main when it moved, and show it until its end; the push itself is already done."""
    if any(update.kind is Kind.MAIN and not update.deletes for update in parse(lines)):
        return deploy_main(bare)
    return 0


def deploy_main(bare: Path) -> int:
    """Start the deploy of main's newest commit, detached, and show its log."""
    here = Place(bare)
    settings = here.settings()
    with held(here.lock("queue"), waits=lambda waited_s: waited_s < 30):
        commit = ask("rev-parse", "--verify", "--quiet", MAIN, cwd=bare)
        if commit is None:
            say("main has no commit yet: push it first")
            return 1
        place.write(here.wanted(settings.environment), commit)
    log = here.log(settings.environment, commit)
    with log.open("ab") as out:
        # A session of its own and no file of ours: ctrl-C of the push, or its terminal closing, does not reach it.
        deploy = subprocess.Popen(
            [sys.executable, "-E", "-s", "-B", str(Path(sys.argv[0]).absolute()), "deploy", commit],
            cwd=bare,
            env=environment.clean(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    say(f"{settings.environment} gets {commit[:9]}; ctrl-C stops this view, not the deploy; log {log}")
    try:
        return _follow(log, deploy, 2 * settings.deploy_limit_s + settings.deploy_grace_s + _MARGIN_S)
    except KeyboardInterrupt:
        tell(f"the deploy of {commit[:9]} goes on; watch it with: tail -f {log}")
    return 0


def _follow(log: Path, deploy: subprocess.Popen[bytes], limit_s: float) -> int:
    deadline = time.monotonic() + limit_s
    with log.open("rb") as file:
        while True:
            over = deploy.poll() is not None  # before the last look: what it wrote until then is shown
            while chunk := file.read(65536):
                pass_on(chunk)
            if over:
                return deploy.returncode
            if time.monotonic() > deadline:
                say(f"this view ends after {limit_s / 60:.0f} minutes; the deploy may go on: tail -f {log}")
                return 0
            time.sleep(_LOOK_S)


def deploy(bare: Path, commit: str) -> int:
    """Deploy one commit when it is its turn, unless a newer one takes its place while it waits."""
    here = Place(bare)
    settings = here.settings()
    name, started = settings.environment, time.time()
    told = 0

    def newest() -> bool:
        file = here.wanted(name)
        return not file.is_file() or file.read_text() == commit

    def waits(waited_s: float) -> bool:
        nonlocal told
        if not told:
            running = place.read(here.running(name))
            since_s = time.time() - float(running.get("since") or time.time())
            say(
                f"{name} is being deployed ({str(running.get('commit', '?'))[:9]}, for {since_s:.0f} s); "
                f"{commit[:9]} waits for its end"
            )
            told = 1
        return newest() and waited_s < settings.deploy_limit_s

    with held(here.lock(name), waits=waits) as lock:
        if not newest():
            say(f"{commit[:9]} is not deployed: the newer {here.wanted(name).read_text()[:9]} takes its place")
            return 0
        if lock is None:
            say(
                f"{commit[:9]} is not deployed: the deploy before it did not end within "
                f"{settings.deploy_limit_s / 60:.0f} minutes"
            )
            _resume(here)
            return 1
        place.write(here.running(name), {"commit": commit, "since": time.time()})
        return _deliver(here, settings, commit, lock, waited_s=time.time() - started)


def _deliver(here: Place, settings: Settings, commit: str, lock: IO[str], *, waited_s: float) -> int:
    name = settings.environment
    tree, began = here.tree(name), time.time()
    state, sentence = here.state(settings)
    if sentence:
        say(sentence)
    try:
        export(here.bare, tree, commit=commit, update=Update("0", commit, MAIN), base=None)
    except (ExportFailed, OSError) as error:
        say(f"{commit[:9]} could not be exported, nothing is deployed: {error}")
        _resume(here)
        return 1
    env = environment.clean(os.environ, **commands.variables(here.card, state, publishes=True))
    ended = run(
        commands.deliver(name),
        cwd=tree,
        env=env,
        limit_s=settings.deploy_limit_s,
        grace_s=settings.deploy_grace_s,
        log=None,
        holds=lock,
    )
    found = place.read(here.push(commit))
    pushed_at = float(found.get("pushed_at") or began - waited_s)
    stages = [Stage(str(stage), float(took_s)) for stage, took_s in found.get("stages") or ()]
    stages += [Stage("wait for an earlier deploy", waited_s)] if waited_s >= 1 else []
    stages += commands.deliver_stages(state, name, commit, began) or [Stage(f"deploy to {name}", ended.took_s)]
    say("")
    for line in table(stages, time.time() - pushed_at):
        say(f"  {line}")
    if ended.code:
        say(
            f"{name} does not have {commit[:9]}: `{' '.join(commands.deliver(name))}` ended with {ended.code}; "
            "its last words are above"
        )
        say("main keeps the commit, and what served before goes on serving")
        _resume(here)
    else:
        say(f"{name} has {commit[:9]}")
    return ended.code


def _resume(here: Place) -> None:
    say(
        f"to resume, when the cause is mended: {here.bare / 'deploy'} (deploys main again), "
        "or push a newer commit to main"
    )
