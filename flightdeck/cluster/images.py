"""Adapter of Docker: our images, built when their content changed, pushed, and named by digest from then on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import yaml

from flightdeck.cluster.commands import CommandFailed, run
from flightdeck.cluster.names import CHECKOUT, IMAGES

Tell = Callable[[str], None]

# What goes into each image: a change of any of it makes another tag, and nothing else does.
INPUTS = {
    "predictor": (
        "bentofile.yaml", "services/__init__.py", "services/predictor", "feature_repo/__init__.py",
        "feature_repo/request.py", "feature_repo/rowwise.py", "feature_repo/airports.py", "flightdeck/__init__.py",
        "flightdeck/contracts", "requirements/service.txt", "requirements/uv.txt",
    ),
    "pipelines": (
        "feature_repo", "flightdeck/__init__.py", "flightdeck/cli", "flightdeck/contracts", "pipelines", "specs",
        "flightdeck/cluster/__init__.py", "flightdeck/cluster/dagster_client.py",
        "flightdeck/cluster/dagster_events.py", "flightdeck/cluster/dagster_queries.py",
        "requirements/orchestration.txt",
    ),
    "mlflow": ("requirements/tracking.txt",),
    "operator": (
        "flightdeck/__init__.py", "flightdeck/contracts", "services/__init__.py", "services/rollout_operator",
        "requirements/operator.txt",
    ),
    # Not of the stack: `flightdeck load --job` builds it.
    "load": (
        "flightdeck/__init__.py", "flightdeck/load", "flightdeck/lab/__init__.py", "flightdeck/lab/users.py",
        "flightdeck/lab/sending.py", "tests/load", "requirements/load.txt",
    ),
}  # fmt: skip
PUSHED = "images.json"
SOURCE_ENV = "FLIGHTDECK_SOURCE"  # address of the repository, for the label
BASE_ENV = "FLIGHTDECK_BASE_IMAGE"  # `pinned`, or a reference by digest; else the tag that the Dockerfiles name
# How packages are found is the builder's business: given to the build, never kept in a layer.
PIP_ENV = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


@dataclasses.dataclass(frozen=True)
class Built:
    """A local image.

    Args:
        tag: `flightdeck/<name>:<first 12 digits of its content>`.
        size_mb: uncompressed.
        fresh: it was built just now.
    """

    name: str
    tag: str
    size_mb: float
    fresh: bool

    @property
    def words(self) -> str:
        """In a few words."""
        return f"{self.tag.rpartition(':')[2]} {self.size_mb:.0f} MB{'' if self.fresh else ' (there)'}"


def pinned(name: str, root: Path = CHECKOUT) -> str:
    """The image that images/pins/<name>.Dockerfile names by digest; Dependabot keeps these files fresh.

    Raises:
        CommandFailed: it names none.
    """
    path = root / "images" / "pins" / f"{name}.Dockerfile"
    found = re.search(r"^FROM (\S+:\S+@sha256:[0-9a-f]{64})$", path.read_text() if path.is_file() else "", re.MULTILINE)
    if not found:
        raise CommandFailed(f"{path} names no image by tag and digest; write `FROM name:tag@sha256:...`")
    return found[1]


def base_image(root: Path = CHECKOUT) -> str | None:
    """The base that `FLIGHTDECK_BASE_IMAGE` asks for, by digest; None for the tag that the Dockerfiles name.

    Raises:
        CommandFailed: it asks for one that floats.
    """
    wanted = os.environ.get(BASE_ENV, "")
    if not wanted:
        return None
    if wanted == "pinned":
        return pinned("base", root)
    if "@sha256:" not in wanted:
        raise CommandFailed(f"{BASE_ENV}={wanted} may be another image tomorrow: write `pinned` or a digest")
    return wanted


def content_of(name: str, root: Path = CHECKOUT) -> str:
    """Twelve hex digits of all that goes into an image, a base by digest included."""
    found, base = digest_of([f"images/{name}", *INPUTS[name]], root), base_image(root)
    return (hashlib.sha256(f"{base}\0{found}".encode()).hexdigest() if base else found)[:12]


def digest_of(inputs: Iterable[str], root: Path = CHECKOUT) -> str:
    """Sha256 of the names and contents of files and folders of the checkout."""
    digest = hashlib.sha256()
    for path in sorted(_files(inputs, root)):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(inputs: Iterable[str], root: Path) -> Iterable[Path]:
    for item in inputs:
        path = root / item
        if path.is_file():
            yield path
        else:
            yield from (it for it in path.rglob("*") if it.is_file() and "__pycache__" not in it.parts)


def build(name: str, *, tell: Tell = lambda _: None, root: Path = CHECKOUT) -> Built:
    """The image of what is in the checkout; not built again when it is there.

    Raises:
        CommandFailed: Docker is absent, does not run, or the build fails; with its last lines.
    """
    tag = f"flightdeck/{name}:{content_of(name, root)}"
    size = _size_mb(tag)
    if size is not None:
        return Built(name, tag, size, fresh=False)
    tell(f"build {tag}")
    settings = {
        "VERSION": tag.rpartition(":")[2],
        "SOURCE": os.environ.get(SOURCE_ENV, "unknown"),
        **_origin(name, root),
    }
    if base := base_image(root):
        settings["BASE"] = base
    arguments = [it for key, value in settings.items() for it in ("--build-arg", f"{key}={value}")]
    arguments += [it for key in PIP_ENV if os.environ.get(key) for it in ("--build-arg", key)]
    dockerfile = root / "images" / name / "Dockerfile"
    run(("docker", "build", "--file", str(dockerfile), "--tag", tag, *arguments, str(root)), timeout_s=1800)
    return Built(name, tag, _size_mb(tag) or 0.0, fresh=True)


def revision(name: str, root: Path = CHECKOUT) -> str:
    """The last commit that changed anything in an image, with `-dirty` when something is changed since; or nothing."""
    return _origin(name, root).get("REVISION", "")


def _origin(name: str, root: Path) -> dict[str, str]:
    """The last commit that changed anything in an image, and its time: the same wherever it is built and whenever."""
    inputs = [f"images/{name}", *INPUTS[name]]
    revision, _, created = _git("log", "-1", "--format=%H %cI", "--", *inputs, root=root).partition(" ")
    if not revision:
        return {}
    changed = _git("status", "--porcelain", "--", *inputs, root=root)
    return {"REVISION": f"{revision}-dirty" if changed else revision, "CREATED": created}


def push(name: str, registry: str, *, state: Path, tag: str | None = None, tell: Tell = lambda _: None) -> str:
    """Push the built image; returns and keeps `registry/name@sha256:...`, which deploys use.

    Args:
        registry: host and path as host and nodes name it, e.g. `localhost:5001/flightdeck`.
        tag: what was built; default: the image of what is in the checkout now.
    Raises:
        CommandFailed: it was not built, or the registry refuses.
    """
    tag = tag or f"flightdeck/{name}:{content_of(name)}"
    known = pushed(state).get(f"flightdeck/{name}", "")
    remote = f"{registry}/{name}:{tag.rpartition(':')[2]}"
    if known.startswith(f"{registry}/{name}@") and _known(state).get(name) == remote and _is_there(remote):
        return known
    tell(f"push {remote}")
    run(("docker", "tag", tag, remote), timeout_s=60)
    run(("docker", "push", "--quiet", remote), timeout_s=900)
    digests = json.loads(run(("docker", "image", "inspect", remote, "--format", "{{json .RepoDigests}}"), timeout_s=60))
    reference = next((it for it in digests if it.startswith(f"{registry}/{name}@")), None)
    if reference is None:
        raise CommandFailed(
            f"{remote}: pushed, but Docker tells no digest for it; it tells: {', '.join(digests) or 'none'}"
        )
    content = {"digests": {**pushed(state), f"flightdeck/{name}": reference}, "tags": {**_known(state), name: remote}}
    state.mkdir(parents=True, exist_ok=True)
    draft = state / f".{PUSHED}"
    draft.write_text(json.dumps(content, indent=2, sort_keys=True))
    draft.replace(state / PUSHED)
    return str(reference)


def pushed(state: Path) -> dict[str, str]:
    """Name in the manifests -> reference by digest, of what was pushed from this checkout."""
    return dict(_read(state).get("digests", {}))


def _known(state: Path) -> dict[str, str]:
    return dict(_read(state).get("tags", {}))


def _read(state: Path) -> dict[str, dict[str, str]]:
    try:
        found: dict[str, dict[str, str]] = json.loads((state / PUSHED).read_text())
    except (OSError, ValueError):
        return {}
    return found


def _is_there(remote: str) -> bool:
    """Whether the registry still has the tag: it may have been made anew meanwhile."""
    import httpx

    host, _, rest = remote.partition("/")
    name, _, tag = rest.rpartition(":")
    scheme = "http" if host.split(":")[0] in ("localhost", "127.0.0.1") else "https"
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    try:
        answer = httpx.head(f"{scheme}://{host}/v2/{name}/manifests/{tag}", headers={"accept": accept}, timeout=10)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


@dataclasses.dataclass(frozen=True)
class Size:
    """An image against its budget, MB above the base."""

    name: str
    above_mb: float
    budget_mb: float

    @property
    def ok(self) -> bool:
        """Within."""
        return self.above_mb <= self.budget_mb


def sizes(root: Path = CHECKOUT, *, names: Sequence[str] = IMAGES, budget: Path | None = None) -> list[Size]:
    """Built images against images/budget.yaml, or another file like it.

    Raises:
        CommandFailed: an image was not built, or has no budget.
    """
    path = budget or root / "images" / "budget.yaml"
    try:
        limits = yaml.safe_load(path.read_text())
        base, allowed = str(limits["base"]), {name: float(mb) for name, mb in limits["above_base_mb"].items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CommandFailed(f"{path} is no budget: write `base: image` and `above_base_mb: {{name: MB}}`") from error
    base_mb = _base_mb(base_image(root) or base)
    found = []
    for name in names:
        size = _size_mb(f"flightdeck/{name}:{content_of(name, root)}")
        if size is None:
            raise CommandFailed(f"{name} is not there; run `flightdeck images build` first")
        if name not in allowed:
            raise CommandFailed(f"{name} has no budget; write how many MB it may take into {path.name}")
        found.append(Size(name, size - base_mb, allowed[name]))
    return found


def _base_mb(base: str) -> float:
    """BuildKit leaves the base it built on in its cache: Docker itself may not have it yet."""
    size = _size_mb(base)
    if size is None:
        run(("docker", "pull", "--quiet", base), timeout_s=300)
        size = _size_mb(base)
    if size is None:
        raise CommandFailed(f"{base} was pulled and is not there")
    return size


def _size_mb(tag: str) -> float | None:
    try:
        return int(run(("docker", "image", "inspect", tag, "--format", "{{.Size}}"), timeout_s=60)) / 1e6
    except CommandFailed as error:
        if "No such image" in error.stderr:
            return None
        raise


def _git(*args: str, root: Path) -> str:
    done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip() if done.returncode == 0 else ""
