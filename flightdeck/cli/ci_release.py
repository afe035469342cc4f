"""`flightdeck ci passed|sign|release`: what CD and a release ask of GitHub, each of them loudly not run elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from flightdeck.cli.options import State, layout_of

WAIT_S, LOOK_S = 5400, 20
DIST = Path("dist") / "release"


def passed() -> None:
    """Wait for the check `ci` of this commit; exit code 1 when it is not green. Example: flightdeck ci passed"""
    from flightdeck.delivery.github import GitHub, GitHubRefused, Run
    from flightdeck.delivery.signing import required

    run = Run.from_env()
    if not required(os.environ):
        print("NOT RUN: CI's word on this commit is GitHub's; here CI runs before a push is taken (docs/ci-cd.md)")
        return
    github = GitHub(run)
    try:
        word = wait(lambda: github.conclusions(run.head, "ci"), tell=lambda it: print(it, flush=True))
    except GitHubRefused as error:
        word = str(error)
    if word != "success":
        print(
            f"CI did not pass {run.head[:12]}: {word}; nothing is deployed. Mend it on main, or run its CI again; a "
            "commit that never was on main has no CI: push it there first",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    print(f"CI passed {run.head[:12]}")


def wait(
    ask: Callable[[], Sequence[str | None]], *, tell: Callable[[str], None], limit_s: float = WAIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> str:  # fmt: skip
    """The conclusion of the newest run of the check, once it has one; words when it never has.

    A check that is not there at all gets ten looks: the workflows of one push do not begin at the same moment.
    """
    looks = 0
    while looks * LOOK_S < limit_s:
        found = ask()
        if found and found[0]:
            return found[0]
        if not found and looks >= 10:
            return "there is no check `ci` of this commit"
        if looks % 15 == 0:
            tell("CI of this commit has not ended yet; waiting")
        looks += 1
        sleep(LOOK_S)
    return f"CI did not end within {limit_s / 60:.0f} minutes"


def sign(state: State = None) -> None:
    """Sign each pushed image without a key, and tell the workflow what to attest. Example: flightdeck ci sign"""
    from flightdeck.cluster import images
    from flightdeck.cluster.commands import CommandFailed
    from flightdeck.delivery import signing

    root = layout_of(state).root
    try:
        found = signing.subjects(images.pushed(root), root, root=Path.cwd())
        signing.tell_workflow(f"images={signing.matrix(found)}")
        if why := signing.cannot_sign(os.environ):
            if signing.required(os.environ):
                raise ValueError(f"the images cannot be signed: {why}")
            print(f"NOT RUN: signatures of {len(found)} images, since {why}")
            return
        for subject in found:
            signing.sign(subject)
            print(f"signed {subject.name}@{subject.digest}")
    except (ValueError, CommandFailed) as error:
        print(f"flightdeck ci sign: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def release(
    tag: str = typer.Option(..., "--tag", envvar="GITHUB_REF_NAME", help="The tag, like v1.2.3."), state: State = None
) -> None:
    """Write the files of a release to dist/release and publish them. Example: flightdeck ci release --tag v0.2.0"""
    import yaml

    from flightdeck.cluster import manifests, overlays
    from flightdeck.cluster.commands import CommandFailed, run
    from flightdeck.cluster.names import CHECKOUT, K8S
    from flightdeck.delivery import release_files, signing

    root = layout_of(state).root
    try:
        version = release_files.version_of(tag, (CHECKOUT / "pyproject.toml").read_text())
        files = {"NOTES.md": release_files.notes(version, (CHECKOUT / "CHANGELOG.md").read_text())}
        for overlay in sorted(it.name for it in (K8S / "overlays").iterdir() if it.is_dir()):
            files[f"{overlay}.yaml"] = yaml.safe_dump_all(overlays.documents(overlay, root), sort_keys=False)
        print(release_files.write(DIST, files))
        if not signing.required(os.environ):
            print(f"NOT RUN: the release's page, since this is not GitHub; its files are in {DIST}")
            return
        paths = [str(DIST / name) for name in [*files, release_files.SUMS]]
        argv = ("gh", "release", "create", tag, "--verify-tag", "--title", tag, "--notes-file", paths[0], *paths)
        print(run(argv, timeout_s=300))
    except (release_files.NoRelease, manifests.ManifestError, CommandFailed) as error:
        print(f"flightdeck ci release: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
