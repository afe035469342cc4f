"""What a push does: CI on an export of it, then the deploy of main; a red one changes nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def leaves(gate, took_s, what, do):
    """A script that leaves a red outcome as a gate does."""
    outcome = json.dumps({"gate": gate, "took_s": took_s, "findings": [{"what": what, "do": do}]})
    return f'mkdir -p "$FLIGHTDECK_STATE/ci"\necho \'{outcome}\' > "$FLIGHTDECK_STATE/ci/{gate}.json"\n'


def test_main_passes_ci_and_is_deployed_once(world):
    done = world.push("main")
    assert done.returncode == 0, done.stderr
    assert world.ref("main") == world.head
    assert world.did("ci") == world.did("deliver") == [world.head]
    assert "dev has " + world.head[:9] in done.stderr
    assert "lead time since the push" in done.stderr


def test_a_red_push_changes_nothing_and_says_what_to_do(world):
    world.push("main")
    before = world.head
    world.commit("bad", {"ci.sh": world.note("ci", "echo E501 line too long in bad.py\nexit 3\n")})
    done = world.push("main", "main:refs/heads/other")
    assert done.returncode != 0
    assert (world.ref("main"), world.ref("other")) == (before, None)
    assert world.did("deliver") == [before]
    assert "E501 line too long in bad.py" in done.stderr
    assert "do: `make ci` in your checkout repeats it" in done.stderr
    assert "nothing changed" in done.stderr


def test_a_gates_own_words_are_the_last_ones(world):
    red = leaves("models", 7.0, "AUC 0.60 is below 0.70", "look at the features")
    world.commit("worse", {"ci.sh": red + "exit 1\n"})
    done = world.push("main")
    assert "gate models is red after 7 s" in done.stderr
    assert done.stderr.index("AUC 0.60 is below 0.70") < done.stderr.index("do: look at the features")


def test_nothing_waits_for_other_gates_once_the_first_one_is_red(world):
    world.commit("lint", {"ci.sh": leaves("check", 1.0, "lint", "make format") + "sleep 1000\n"})
    done = world.push("main", timeout_s=150)
    assert done.returncode != 0
    assert "do: make format" in done.stderr
    assert "did not run" in done.stderr


def test_a_branch_gets_ci_only(world):
    done = world.push("main:refs/heads/topic")
    assert done.returncode == 0, done.stderr
    assert (world.did("ci"), world.did("deliver")) == ([world.head], [])
    assert (world.marks / "ci").read_text().split()[-1] == "topic"


def test_a_tree_that_passed_is_not_tested_again_but_deployed(world):
    world.push("main:refs/heads/topic")
    done = world.push("main")
    assert (len(world.did("ci")), len(world.did("deliver"))) == (1, 1)
    assert "passed CI before" in done.stderr


def test_another_champion_is_another_judgement(world):
    world.push("main:refs/heads/topic")
    world.place.card.write_text("{}")
    world.push("main")
    assert len(world.did("ci")) == 2


def test_two_pushes_in_a_row_are_two_deploys(world):
    first = world.head
    assert world.push("main").returncode == 0
    second = world.commit("second", {"a": "1"})
    assert world.push("main").returncode == 0
    assert world.did("ci") == world.did("deliver") == [first, second]


def test_no_git_variable_and_no_make_flag_reaches_ci_and_cd(world):
    env = 'env > "{}/{}"\n'
    world.commit("env", {"ci.sh": env.format(world.marks, "env-ci"), "deliver.sh": env.format(world.marks, "env-cd")})
    world.push("-o", "ignored", "main")
    for name in ("env-ci", "env-cd"):
        found = dict(line.split("=", 1) for line in (world.marks / name).read_text().splitlines() if "=" in line)
        assert not [key for key in found if key.startswith("GIT_")], found
        assert "--no-print-directory" not in found.get("MAKEFLAGS", "")
        assert found["HOME"] == world.env["HOME"]
        assert not found["FLIGHTDECK_STATE"].startswith(str(world.bare)) or name == "env-ci"
    assert str(world.checkout / ".flightdeck") in (world.marks / "env-cd").read_text()


def test_the_export_is_a_repository_of_its_own_with_the_whole_history(world):
    world.push("main")
    old = world.head
    look = (
        'git log --format=%H > "{0}/log"; git rev-parse origin/main > "{0}/base"\n'
        'git status --porcelain > "{0}/status"\n'
        'git fsck > "{0}/fsck" 2>&1; git remote > "{0}/remotes"\n'
    )
    world.commit(
        "look", {"ci.sh": look.format(world.marks), "name with\nnewline": "x", "-rf": "y", "ünï.txt": "crlf\n"}
    )
    assert world.push("main:refs/heads/topic").returncode == 0
    assert (world.marks / "log").read_text().split() == [world.head, old]
    assert (world.marks / "base").read_text().strip() == old
    assert [(world.marks / name).read_text() for name in ("status", "fsck", "remotes")] == ["", "", ""]


def test_a_refused_push_leaves_no_object_behind(world):
    commit = world.commit("bad", {"ci.sh": "exit 1\n"})
    assert world.push("main").returncode != 0
    assert subprocess.run(
        ["git", "cat-file", "-e", commit], cwd=world.bare, check=False, capture_output=True
    ).returncode


def test_a_forced_push_is_judged_like_any_other_and_told(world):
    world.push("main")
    world.commit("second", {"a": "1"})
    world.push("main")
    lost = world.head
    world.git("reset", "-q", "--hard", "HEAD~1")
    world.commit("other second", {"b": "1"})
    assert world.push("main").returncode != 0  # git's own word
    done = world.push("--force", "main")
    assert done.returncode == 0
    assert "forced: 1 commit(s) leave main" in done.stderr
    assert world.did("deliver")[-1] == world.head
    assert lost in (world.bare / "logs" / "refs" / "heads" / "main").read_text()


def test_main_cannot_be_deleted_and_a_branch_can(world):
    world.push("main", "main:refs/heads/topic")
    runs = len(world.did("ci"))
    done = world.push(":main")
    assert done.returncode != 0
    assert "main cannot be deleted" in done.stderr
    assert world.push(":topic").returncode == 0
    assert (world.ref("main"), world.ref("topic")) == (world.head, None)
    assert len(world.did("ci")) == runs
    assert len(world.did("deliver")) == 1


def test_a_tag_on_an_old_commit_gets_ci_and_moves_nothing(world):
    old = world.head
    world.commit("second", {"a": "1"})
    world.push("main")
    world.git("tag", "-a", "v1", "-m", "release", old)
    done = world.push("v1")
    assert done.returncode == 0, done.stderr
    assert world.did("ci")[-1] == old
    assert len(world.did("deliver")) == 1
    assert "what is deployed stays" in done.stderr
    assert "release.yml on GitHub" in done.stderr


def test_a_commit_from_before_ci_is_not_let_in(world):
    (world.checkout / "ci.sh").unlink()  # make would build `ci` from it
    world.commit("no makefile target", {"Makefile": "all:\n"})
    world.git("tag", "ancient")
    done = world.push("ancient")
    assert done.returncode != 0
    assert "no target `ci`" in done.stderr


def test_a_tag_of_no_commit_and_other_refs_are_refused(world):
    world.git("tag", "tree", "HEAD^{tree}")
    assert "does not lead to a commit" in world.push("tree").stderr
    assert "only branches and tags" in world.push("HEAD:refs/notes/x").stderr
    assert world.did("ci") == []


@pytest.mark.parametrize(
    "name", [";rm${IFS}-rf${IFS}x", "$(touch${IFS}PWNED)", "`touch${IFS}PWNED`", "a'b\"c", "-x&&y|z", "é%s%n"]
)
def test_a_branch_name_is_never_more_than_a_name(world, name):
    before = sorted(path.name for path in world.checkout.parent.iterdir())
    done = world.push(f"HEAD:refs/heads/{name}")
    assert done.returncode == 0, done.stderr
    assert world.did("ci") == [world.head]
    assert world.ref(f"refs/heads/{name}") == world.head
    assert not list(world.folder.rglob("PWNED"))
    assert sorted(path.name for path in world.checkout.parent.iterdir()) == before


def test_several_refs_are_tested_once_each_and_let_in_together(world):
    first = world.head
    world.git("branch", "same")
    second = world.commit("second", {"a": "1"})
    done = world.push("main", "same", "main:refs/heads/copy")
    assert done.returncode == 0, done.stderr
    assert world.did("ci") == [second, first]
    assert world.did("deliver") == [second]


def test_a_push_of_very_many_states_is_refused_before_anything_runs(world):
    for number in range(6):
        world.commit(f"{number}", {"a": f"{number}"})
        world.git("branch", f"b{number}")
    done = world.push("--all")
    assert "6 different states" in done.stderr
    assert world.did("ci") == []


def test_much_output_and_no_newline_at_its_end_come_whole(world):
    noise = f"{sys.executable} -c \"print('x' * 99 + chr(10), end='')\"; yes 0123456789 | head -c 3000000; printf end"
    world.commit("loud", {"ci.sh": noise})
    done = world.push("main:refs/heads/loud")
    assert done.returncode == 0
    assert len(done.stderr) > 3_000_000
    assert max(path.stat().st_size for path in world.place.logs.iterdir()) > 3_000_000


def test_a_commit_that_tracks_what_ci_keeps_is_refused(world):
    (world.checkout / ".venv").symlink_to("/etc")
    world.commit("link")
    done = world.push("main")
    assert "tracks .venv" in done.stderr
    assert Path("/etc").is_dir()


def test_what_ci_leaves_in_its_export_is_gone_at_the_next_run(world):
    world.commit(
        "leave",
        {"ci.sh": "mkdir -p left/ro && touch left/ro/f && chmod 500 left/ro && mkdir -p .venv && touch .venv/kept\n"},
    )
    assert world.push("main:refs/heads/a").returncode == 0
    world.commit("look", {"ci.sh": f'ls -A > "{world.marks}/ls"; ls .venv >> "{world.marks}/ls"\n'})
    assert world.push("main:refs/heads/b").returncode == 0
    found = (world.marks / "ls").read_text().split()
    assert "left" not in found
    assert "kept" in found


def test_a_red_push_under_act_does_not_speak_for_the_next_one(world):
    artefacts = '"$FLIGHTDECK_STATE/act/artefacts/outcome-check"'
    outcome = json.dumps({"gate": "check", "took_s": 1.0, "findings": [{"what": "lint", "do": "make format"}]})
    world.commit("red", {"ci.sh": f"mkdir -p {artefacts}\necho '{outcome}' > {artefacts}/check.json\nsleep 1000\n"})
    assert "gate check is red" in world.push("main", timeout_s=150).stderr
    packages = world.place.root / "ci" / "state" / "act" / "venv" / "package"
    packages.parent.mkdir(parents=True)
    packages.touch()
    world.commit("mended", {"ci.sh": "sleep 3\n"})
    done = world.push("main")
    assert done.returncode == 0, done.stderr
    assert packages.exists()


def test_a_label_of_the_push_reaches_the_gates(world):
    world.commit("label", {"ci.sh": f'echo "$FLIGHTDECK_LABELS" > "{world.marks}/labels"\n'})
    assert world.push("-o", "label=features:destructive", "main:refs/heads/a").returncode == 0
    assert (world.marks / "labels").read_text() == "features:destructive\n"
    world.push("main:refs/heads/b")
    assert (world.marks / "labels").read_text() == "\n", "what passed under a label is judged again without"


def test_with_act_on_the_path_the_pushed_commits_own_workflow_runs(world):
    tools = world.folder / "tools"
    tools.mkdir()
    (tools / "act").write_text("#!/bin/sh\n")
    (tools / "act").chmod(0o755)
    world.env["PATH"] = f"{tools}:{world.env['PATH']}"
    world.push("main")
    base = world.head
    runner = (
        f"import sys, os, json\nopen({str(world.marks / 'act')!r}, 'w').write(json.dumps(sys.argv[1:]))\nsys.exit(7)\n"
    )
    world.commit(
        "act", {".github/workflows/ci.yml": "", "flightdeck/delivery/act.py": runner, "flightdeck/__init__.py": ""}
    )
    world.place.card.write_text("{}")
    done = world.push("main")
    assert done.returncode != 0
    assert "act push (ci.yml)" in done.stderr
    told = json.loads((world.marks / "act").read_text())
    assert told == ["ci.yml", "--before", base, "--", "--var", f"CHAMPION_CARD={world.place.card}"]


def test_the_hooks_work_without_the_checkout_and_its_environment(world):
    moved = world.folder / "elsewhere"
    world.checkout.rename(moved)
    world.checkout = moved
    done = world.push("main")
    assert done.returncode == 0, done.stderr
    assert world.did("ci") == [world.head]


def test_a_python_that_is_gone_is_told_and_lets_nothing_in(world):
    hook = world.bare / "hooks" / "pre-receive"
    real = str(Path(sys._base_executable).resolve())
    assert real in hook.read_text()
    hook.write_text(hook.read_text().replace(real, "/gone/python").replace("python3;", "python0;"))
    done = world.push("main")
    assert done.returncode != 0
    assert "the Python that made this remote is gone: /gone/python" in done.stderr
    assert "do: make git-remote" in done.stderr
    assert world.ref("main") is None


def test_a_broken_frame_lets_nothing_in(world):
    frame = next((world.bare / "flightdeck").glob("frame-*"))
    frame.rename(frame.with_name("gone"))
    done = world.push("main")
    assert done.returncode != 0
    assert "is gone" in done.stderr
    frame.with_name("gone").rename(frame)
    world.place.settings_file.write_text("{")
    done = world.push("main")
    assert done.returncode != 0
    assert "run `make git-remote` again" in done.stderr
    assert world.ref("main") is None


def test_the_frame_needs_no_package(world):
    frame = next((world.bare / "flightdeck").glob("frame-*"))
    what = "import flightdeck.delivery.remote.hooks"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(frame)!r}); {what}"],
        check=False, capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert os.access(world.bare / "hooks" / "pre-receive", os.X_OK)


def test_ci_cannot_reach_the_users_cluster_and_the_deploy_can(world):
    tools = world.folder / "tools"
    tools.mkdir()
    (tools / "kind").write_text("#!/bin/sh\necho flightdeck\n")
    (tools / "kind").chmod(0o755)
    world.env |= {"PATH": f"{tools}:{world.env['PATH']}", "KUBECONFIG": "/users/own"}
    note = 'echo "$KUBECONFIG $FLIGHTDECK_E2E_LEFT_OUT" > "{}/{}"\n'
    world.commit("k", {"ci.sh": note.format(world.marks, "ci-k"), "deliver.sh": note.format(world.marks, "cd-k")})
    done = world.push("main")
    assert "NOT RUN: the e2e gate: the kind cluster flightdeck is on this machine already" in done.stderr
    assert (world.marks / "ci-k").read_text().startswith(f"{world.bare}/flightdeck/ci/kubeconfig the kind cluster")
    assert (world.marks / "cd-k").read_text() == "/users/own \n"


def test_the_stages_of_ci_and_cd_are_one_table(world):
    green = json.dumps({"gate": "check", "took_s": 2.5, "findings": []})
    record = '{"commit": "%s", "stages": [{"name": "training", "seconds": 61.0}, {"name": "rollout", "seconds": 30.0}]}'
    ci = f'mkdir -p "$FLIGHTDECK_STATE/ci"\necho \'{green}\' > "$FLIGHTDECK_STATE/ci/check.json"\n'
    kept = '"$FLIGHTDECK_STATE/deliveries"'
    cd = f"mkdir -p {kept}\nprintf '{record}' $(git rev-parse HEAD) > {kept}/dev.json\n"
    world.commit("timed", {"ci.sh": ci, "deliver.sh": cd})
    said = world.push("main").stderr
    stages = (
        "push and export",
        "CI: check",
        "CD: training",
        "CD: rollout",
        "lead time since the push",
        "1. longest: CD: training",
    )
    places = [said.index(stage) for stage in stages]
    assert places == sorted(places)
    assert "fewer trials" in said


def test_a_slip_that_lint_finds_is_turned_back_before_anything_slow_begins(world):
    makefile = (world.checkout / "Makefile").read_text()
    world.commit("lint", {"Makefile": makefile + "lint:\n\t@echo x.py:1: F401; test -e clean\n"})
    done = world.push("main")
    assert done.returncode != 0
    assert "do: `make lint` in your checkout repeats it" in done.stderr
    assert world.did("ci") == []
    world.commit("clean", {"clean": ""})
    assert world.push("main").returncode == 0
    assert world.did("ci") == [world.head]
