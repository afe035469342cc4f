"""Facts about the repository itself that a reader relies on."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from flightdeck.cli.ci_parts import CHECK, INTEGRATION
from flightdeck.delivery import behaviour

ROOT = Path(__file__).parents[3]
FILES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    if name and (ROOT / name).is_file()
]
TEXTS = [
    path for path in FILES if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".in", ".sh", ".html", ""}
]
PAGES = [path for path in FILES if path.suffix == ".md"]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def test_there_are_files_to_look_at():
    assert len(TEXTS) > 50
    assert PAGES
    assert LOCKS


def test_no_file_names_a_package_registry():
    host = re.compile(r"https?://[^\s\"')]*(pypi|pythonhosted|npmjs|crates\.io|golang\.org|deb\.debian|maven)")
    found = [str(path.relative_to(ROOT)) for path in TEXTS if host.search(path.read_text(errors="ignore"))]
    assert not found, f"a lock or page that names a registry breaks behind a mirror: {found}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_locked_package_is_pinned_with_a_hash(lock):
    blocks = [block for block in re.split(r"\n(?=\S)", lock.read_text().strip()) if block]
    loose = [block.splitlines()[0] for block in blocks if "==" not in block or "--hash=sha256:" not in block]
    assert not loose, f"{lock.name}: not pinned by version and hash: {loose}"


def test_every_dependency_group_has_a_lock_and_agrees_with_the_whole():
    groups = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"])
    assert groups == {lock.stem for lock in LOCKS} - {"uv"}
    pins = {lock.stem: set(re.findall(r"^[a-z0-9][^\s;]*==[^\s;\\]+", lock.read_text(), re.M)) for lock in LOCKS}
    for group in groups:
        assert pins[group] <= pins["dev"], (
            f"{group} differs from dev: {sorted(pins[group] - pins['dev'])}; run `make lock`"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    dead = [target for target in targets if not (page.parent / target).exists()]
    assert not dead, f"{page.relative_to(ROOT)} links to {dead}"


def test_every_make_target_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", page.read_text(), re.M)
    }
    assert named, "no page names a target"
    missing = sorted((page, name) for page, name in named if name not in targets)
    assert not missing


def test_ci_runs_what_the_readme_tells_a_user():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for command in ("make lab", "make test"):
        assert re.search(rf"^{command}\b", readme, re.M), f"README.md does not show `{command}`"
    gates = [part.argv for part in (*CHECK, *INTEGRATION)]
    assert [argv for argv in gates if argv[-1] == "lab"], "no gate runs `make lab`"
    checks = re.search(r"^check: (.*?) ##", makefile, re.M)
    assert checks
    assert set(checks[1].split()) <= {argv[-1] for argv in gates}, "no gate runs all of `make check`"
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and list(path.rglob("test_*.py"))}
    run = {Path(word).name for argv in gates for word in argv if word.startswith("tests/")} | {behaviour.FOLDER.name}
    assert run == folders - {"e2e"}, "`make test` has tests that no gate runs, or the other way round"


def test_the_ci_script_runs_the_workflow_or_its_targets():
    script = (ROOT / ".ci" / "run").read_text()
    assert "flightdeck.delivery.act ci.yml" in script
    assert re.search(r"^\s*make ci$", script, re.M)


def test_no_file_is_too_long_to_read_in_one_sitting():
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES if path.suffix == ".py"}
    assert not {name: lines for name, lines in long.items() if lines > 450}
