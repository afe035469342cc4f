"""The gate of images, wired: locks first, then each image: built, weighed, read, scanned, started."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flightdeck.cluster import images
from flightdeck.cluster.commands import CommandFailed
from flightdeck.delivery.images import bill, contents, layers, packages, policy, scanners, smoke
from flightdeck.delivery.images.advisories import Vulnerability
from flightdeck.delivery.outcome import Finding, Outcome

GATE = "images"
Tell = Callable[[str], None]


@dataclasses.dataclass
class _Seen:
    """What the gate has found so far."""

    findings: list[Finding] = dataclasses.field(default_factory=list)
    says: list[str] = dataclasses.field(default_factory=list)
    not_run: list[str] = dataclasses.field(default_factory=list)
    rows: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    vulnerabilities: list[Vulnerability] = dataclasses.field(default_factory=list)
    complete: bool = True  # everything was scanned
    blind: bool = False  # the scanner does not work: it is said once

    def refuse(self, what: str, do: str) -> None:
        self.findings.append(Finding(what=what, do=do))


def judge(
    names: Sequence[str], *, root: Path, state: Path, environment: Mapping[str, str], today: dt.date,
    all_names: Sequence[str], budget: Path | None = None, policy_file: Path | None = None, tell: Tell = lambda _: None,
) -> Outcome:  # fmt: skip
    """Hold images to budgets, policy, and what must not be in them; a vulnerable pin stops it before any build.

    Args:
        names: the images to look at; `all_names` are all there are.
        environment: FLIGHTDECK_SCANNER and FLIGHTDECK_ADVISORIES (scanners.py).
    """
    seen = _Seen()
    try:
        held = policy.load(policy_file or root / "images" / "vulnerabilities.yaml")
    except policy.PolicyError as error:
        seen.refuse(str(error), "write it as docs/images.md#known-vulnerabilities shows")
        return _outcome(seen)
    seen.findings += policy.of_exceptions(held, today)
    scanner = _scanner(held, environment, state, root, seen)
    tell("look up the pins of the locks")
    _locks(root, state, scanner, held, seen)
    judged = policy.judge(seen.vulnerabilities, held, today)
    if judged.refused:
        seen.findings += policy.refusals(judged.refused)
        seen.not_run.append("no image was built: the locks are refused first")
        return _outcome(seen)
    for name in names:
        _image(name, root=root, state=state, scanner=scanner, held=held, budget=budget, seen=seen, tell=tell)
    _verdict(seen, held, today, whole=scanner is not None and seen.complete and set(names) == set(all_names))
    return _outcome(seen)


def _outcome(seen: _Seen) -> Outcome:
    head = ("image", "MB above the base", "budget, MB", "packages", "known against it", "proved by")
    tables = {"Images": (head, *seen.rows)} if seen.rows else {}
    return Outcome(
        gate=GATE, findings=tuple(seen.findings), says=tuple(seen.says), tables=tables, not_run=tuple(seen.not_run)
    )


def _scanner(
    held: policy.Policy, environment: Mapping[str, str], state: Path, root: Path, seen: _Seen
) -> scanners.Scanner | None:
    try:
        found = scanners.named(environment, state=state, root=root)
    except (scanners.CannotScan, CommandFailed) as error:
        _cannot(str(error), held, seen)
        return None
    if found is None:
        seen.not_run.append(
            f"known vulnerabilities were not looked up: {scanners.SCANNER_ENV} names no scanner; set it to trivy where "
            f"its database can be reached, or to osv with {scanners.ADVISORIES_ENV}=folder"
        )
    return found


def _cannot(why: str, held: policy.Policy, seen: _Seen) -> None:
    """A scanner was named and did not scan: red where the policy requires it, and loud anyway."""
    seen.complete, seen.blind = False, True
    seen.not_run.append(f"known vulnerabilities were not looked up: {' '.join(why.split())[:300]}")
    if held.required:
        seen.refuse(
            f"the scan that images/vulnerabilities.yaml requires could not run: {why}",
            f"make the scanner run, or leave {scanners.SCANNER_ENV} empty where none can be reached",
        )


def _scan(path: Path, where: str, scanner: scanners.Scanner | None, held: policy.Policy, seen: _Seen) -> int | None:
    if scanner is None or seen.blind:
        return None
    try:
        found = [dataclasses.replace(it, where=where) for it in scanner(path)]
    except scanners.CannotScan as error:
        _cannot(f"{where}: {error}", held, seen)
        return None
    seen.vulnerabilities += found
    return len({it.id for it in found})


def _locks(root: Path, state: Path, scanner: scanners.Scanner | None, held: policy.Policy, seen: _Seen) -> None:
    try:
        pins = packages.from_locks((root / "requirements").glob("*.txt"))
        path = bill.keep(bill.of_locks(pins), "locks", state)
        if not pins:
            raise ValueError(f"none in {root / 'requirements'}")
    except (ValueError, OSError) as error:
        seen.refuse(f"the locks cannot be read: {error}", "run `make lock`")
        return
    before = len(seen.vulnerabilities)
    if _scan(path, "requirements", scanner, held, seen) is not None:
        places = {(pin.name, pin.version): "requirements/" + "|".join(locks) for pin, locks in pins.items()}
        seen.vulnerabilities[before:] = [
            dataclasses.replace(it, where=places.get((it.package, it.version), it.where))
            for it in seen.vulnerabilities[before:]
        ]
        seen.says.append(f"{len(pins)} pins of {len({it for found in pins.values() for it in found})} locks looked up")


def _image(
    name: str, *, root: Path, state: Path, scanner: scanners.Scanner | None, held: policy.Policy,
    budget: Path | None, seen: _Seen, tell: Tell,
) -> None:  # fmt: skip
    try:
        tag = images.build(name, tell=tell, root=root).tag
        (size,) = images.sizes(root, names=(name,), budget=budget)
    except CommandFailed as error:
        seen.complete = False
        seen.refuse(f"{name}: {error}", f"make `flightdeck images build {name}` and `flightdeck images sizes` work")
        return
    if not size.ok:
        seen.refuse(
            f"{name} takes {size.above_mb:.0f} MB above its base, {size.above_mb - size.budget_mb:.0f} more than its "
            f"budget of {size.budget_mb:.0f}",
            f"find what grew with `docker history {tag}` and take it out of its lock or its COPY lines; raise the "
            "figure in images/budget.yaml only when users gain by it",
        )
    tell(f"read {tag}")
    count, known = _read(name, tag, state=state, scanner=scanner, held=held, seen=seen)
    tell(f"start {tag}")
    proved = _started(name, tag, root, seen)
    looked = "not looked up" if known is None else str(known)
    figures = (f"{size.above_mb:.0f}", f"{size.budget_mb:.0f}", str(count))
    seen.rows.append((name, *figures, looked, proved))
    seen.says.append(f"{name}: {size.above_mb:.0f} of {size.budget_mb:.0f} MB, {count} packages, {proved}")


def _started(name: str, tag: str, root: Path, seen: _Seen) -> str:
    """What its smoke run proves."""
    if name not in smoke.SMOKES:
        seen.refuse(
            f"no smoke run for {name}: nothing shows that it works",
            "add one to SMOKES in flightdeck/delivery/images/smoke.py",
        )
        return "nothing"
    try:
        return f"{smoke.SMOKES[name].proves}, {smoke.smoke(name, tag, root):.0f} s"
    except CommandFailed as error:
        seen.refuse(
            f"{name} does not work read-only as user {smoke.USER} without capabilities and network: {error}",
            "a path that it writes belongs under /tmp, a module that it misses into its lock or its COPY lines",
        )
        return "does not work"


def _read(
    name: str, tag: str, *, state: Path, scanner: scanners.Scanner | None, held: policy.Policy, seen: _Seen
) -> tuple[int, int | None]:
    """(packages in the image, vulnerabilities known of them; None when nobody looked)."""
    try:
        image = layers.read(tag, contents.wanted)
        found, distro = contents.packages(image.files, image.environment)
        if not found:
            raise ValueError("no package was found in it")
        written = bill.of_image(f"flightdeck/{name}", image.digest, found, distro=distro, created=image.created)
        path = bill.keep(written, name, state)
    except (CommandFailed, ValueError) as error:
        seen.complete = False
        seen.refuse(f"{name}: what is in it cannot be told: {error}", "build it again, or mend its packages' METADATA")
        return 0, None
    for wrong in contents.forbidden(image.shipped):
        seen.refuse(
            f"{name} holds {wrong}",
            "leave it out of the COPY line that brings it (and out of .dockerignore's list); what is secret in it is "
            "known now: replace it",
        )
    if contents.may_be_root(image.user):
        seen.refuse(f"{name} starts as user {image.user or 'root'!r}", "write `USER 10001:10001` into its Dockerfile")
    return len(found), _scan(path, name, scanner, held, seen)


def _verdict(seen: _Seen, held: policy.Policy, today: dt.date, *, whole: bool) -> None:
    judged = policy.judge(seen.vulnerabilities, held, today)
    seen.findings += policy.refusals(judged.refused)
    for it, waiver in judged.excepted:
        seen.says.append(f"{it.id} in {it.package} {it.version} may stay until {waiver.expires}: {waiver.reason}")
    if judged.waiting:
        ids = ", ".join(sorted({f"{it.id} ({it.package})" for it in judged.waiting})[:5])
        seen.says.append(f"{len(judged.waiting)} of the base wait for Debian's fix: {ids}, ...")
    if judged.below:
        seen.says.append(f"{len(judged.below)} known vulnerabilities below {held.blocks_from}, which is the bar")
    if whole:
        seen.findings += policy.unused(held, seen.vulnerabilities)
    elif held.exceptions:
        seen.not_run.append("whether each exception is still needed: that takes a scan of everything")
