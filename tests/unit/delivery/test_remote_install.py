"""`make git-remote`: what it makes, that it is safe to repeat, and what it refuses before it touches anything."""

import subprocess
from pathlib import Path

import pytest

from flightdeck.cli.main import main
from flightdeck.delivery.remote.install import Refused, make


def git(*args, at):
    return subprocess.run(["git", *args], cwd=at, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "project"
    git("init", "-q", "-b", "main", str(folder), at=tmp_path)
    return folder


def made(checkout, path=None):
    return make(checkout, path=path, state=checkout / ".flightdeck")


def test_it_makes_a_bare_repository_beside_the_checkout_and_the_remote(checkout):
    found = made(checkout)
    assert (found.bare, found.new, found.old_remote) == (checkout.parent / "project.git", True, False)
    assert git("remote", "get-url", "flightdeck", at=checkout) == str(found.bare)
    assert git("symbolic-ref", "HEAD", at=found.bare) == "refs/heads/main"
    assert found.bare.stat().st_mode & 0o077 == 0


def test_a_second_time_changes_nothing_but_renews_the_hooks_and_keeps_settings(checkout):
    first = made(checkout)
    hook = first.bare / "hooks" / "pre-receive"
    text = hook.read_text()
    hook.unlink()
    settings = first.bare / "flightdeck" / "remote.json"
    settings.write_text(settings.read_text().replace("5400", "60", 1))
    again = made(checkout)
    assert (again.bare, again.new, again.old_remote) == (first.bare, False, True)
    assert hook.read_text() == text
    assert '"ci_limit_s": 60' in settings.read_text()


def test_the_place_once_chosen_is_found_again(checkout, tmp_path):
    chosen = tmp_path / "else where" / "x.git"
    made(checkout, chosen)
    assert made(checkout).bare == chosen


def test_another_remote_of_that_name_is_left_alone(checkout):
    git("remote", "add", "flightdeck", "https://example.org/x", at=checkout)
    with pytest.raises(Refused, match=r"leads to https://example.org/x .*rename it"):
        made(checkout)
    assert not (checkout.parent / "project.git").exists()


def test_what_was_not_made_here_is_left_alone(checkout):
    other = checkout.parent / "project.git"
    git("init", "-q", "--bare", str(other), at=checkout)
    before = sorted(str(path) for path in other.rglob("*"))
    with pytest.raises(Refused, match="was not made by"):
        made(checkout)
    assert sorted(str(path) for path in other.rglob("*")) == before


@pytest.mark.parametrize("inside", [".flightdeck/r.git", ".git/r.git", "."])
def test_it_lies_outside_of_the_checkout_where_clean_does_not_reach(checkout, inside):
    with pytest.raises(Refused, match="lies in the checkout"):
        made(checkout, checkout / inside)


def test_a_folder_that_is_no_checkout_is_told(tmp_path):
    with pytest.raises(Refused, match="no git checkout"):
        make(tmp_path, path=None, state=tmp_path / "state")


def test_the_command_says_what_it_made_and_that_a_push_runs_as_you(checkout, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("FLIGHTDECK_STATE", str(checkout / ".flightdeck"))
    with pytest.raises(SystemExit) as ended:
        main(["git-remote", "--path", str(checkout.parent / "r.git")])
    assert not ended.value.code
    assert "runs its code as you" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["git-remote", "--path", str(checkout.parent / "other.git")])
    assert ended.value.code == 1
    assert "git remote set-url" in capsys.readouterr().err
    assert not Path(checkout.parent / "other.git").exists()
