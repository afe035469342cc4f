"""Pushes that meet each other, that end early, and deploys that go on without them."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

GATE = 'touch "{marks}/{what}-began"\nwhile [ ! -e "{marks}/{what}-go" ]; do sleep 0.1; done\n'


def until(holds, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def gate(world, what):
    """A script that notes its commit, says that it began, and goes on when the test lets it."""
    return GATE.format(marks=world.marks, what=what) + world.note(what)


def began(world, what):
    until((world.marks / f"{what}-began").is_file)
    (world.marks / f"{what}-began").unlink()


def go(world, what):
    (world.marks / f"{what}-go").touch()


def said(pushing):
    """What a push that was started has said."""
    return Path(pushing.file.name).read_text(errors="replace")


def finish(pushing, timeout_s=120):
    return pushing.wait(timeout_s), said(pushing)


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def processes(world, *words):
    """Ids of processes of this world whose command line holds all words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = f"{(entry / 'cwd').readlink()} {line}"
            if str(world.folder) in where and all(word in line for word in words):
                found.append(int(entry.name))
    return found


@pytest.fixture
def slow_deploy(world):
    world.commit("slow deploy", {"deliver.sh": gate(world, "deliver")})
    return world


def test_ctrl_c_of_the_push_leaves_the_deploy_running_to_its_end(slow_deploy):
    world = slow_deploy
    pushing = world.start("main")
    began(world, "deliver")
    os.killpg(pushing.pid, signal.SIGINT)  # as a terminal does: git, receive-pack and the hook alike
    finish(pushing)
    assert world.did("deliver") == []
    assert world.ref("main") == world.head
    go(world, "deliver")
    until(lambda: world.did("deliver") == [world.head])
    log = next(path for path in world.place.logs.iterdir() if path.name.startswith("dev-"))
    until(lambda: f"dev has {world.head[:9]}" in log.read_text())
    assert "lead time since the push" in log.read_text()


def test_a_push_during_a_deploy_is_told_and_waits_and_the_newest_takes_the_place_of_older_ones(slow_deploy):
    world = slow_deploy
    first, pushes = world.head, [world.start("main")]
    began(world, "deliver")
    later = []
    for number in (2, 3):
        later.append(world.commit(f"{number}", {"a": f"{number}"}))
        pushes.append(world.start("main"))
        until(lambda pushing=pushes[-1]: "waits for its end" in said(pushing))
    assert f"dev is being deployed ({first[:9]}" in said(pushes[1])
    code, words = finish(pushes[1])  # superseded at once, not at the end of the first
    assert code == 0
    assert f"{later[0][:9]} is not deployed: the newer {later[1][:9]} takes its place" in words
    go(world, "deliver")
    assert "lead time since the push" in finish(pushes[2])[1]
    assert finish(pushes[0])[0] == 0
    assert world.did("deliver") == [first, later[1]]


def test_ctrl_c_during_ci_ends_it_and_changes_nothing(world):
    world.commit("slow", {"ci.sh": "setsid sleep 1000 &\n" + gate(world, "ci")})
    pushing = world.start("main")
    began(world, "ci")
    os.killpg(pushing.pid, signal.SIGINT)
    assert finish(pushing)[0] != 0
    until(lambda: not processes(world, "ci.sh") and not processes(world, "sleep 1000"))
    assert world.ref("main") is None
    go(world, "ci")
    world.commit("quick", {"ci.sh": world.note("ci")})
    assert world.push("main").returncode == 0  # nothing holds CI's place


def test_a_killed_hook_lets_nothing_in_and_leaves_nothing_running(world):
    world.commit("slow", {"ci.sh": gate(world, "ci")})
    pushing = world.start("main")
    began(world, "ci")
    for pid in processes(world, "frame-", "pre-receive"):
        os.kill(pid, signal.SIGKILL)
    code, words = finish(pushing)
    assert code != 0
    assert "pre-receive hook declined" in words
    until(lambda: not processes(world, "ci.sh"))
    assert world.ref("main") is None


def test_a_pusher_that_is_killed_ends_its_ci(world):
    world.commit("slow", {"ci.sh": gate(world, "ci")})
    pushing = world.start("main")
    began(world, "ci")
    os.killpg(pushing.pid, signal.SIGKILL)  # git and receive-pack; the hook too, its command is elsewhere
    pushing.wait(60)
    until(lambda: not processes(world, "ci.sh"))
    assert world.ref("main") is None


def test_a_push_during_anothers_ci_waits_for_it(world):
    world.commit("slow", {"ci.sh": gate(world, "ci")})
    one = world.start("main:refs/heads/one")
    began(world, "ci")
    two = world.start("main:refs/heads/two")
    until(lambda: "another push's CI runs" in said(two))
    go(world, "ci")
    assert finish(one)[0] == 0
    code, words = finish(two)
    assert code == 0
    assert "passed CI before" in words
    assert len(world.did("ci")) == 1


def test_a_push_whose_branch_moved_while_it_waited_is_refused_before_its_ci(world):
    world.commit("slow", {"ci.sh": gate(world, "ci")})
    one = world.start("main")
    began(world, "ci")
    world.commit("other", {"a": "1"})
    two = world.start("main")
    until(lambda: "another push's CI runs" in said(two))
    go(world, "ci")
    assert finish(one)[0] == 0
    code, words = finish(two)
    assert code != 0
    assert "moved while this push waited" in words
    assert len(world.did("ci")) == 1


def test_a_ci_without_end_is_ended_and_refuses(world):
    world.settings(ci_limit_s=2)
    world.commit("endless", {"ci.sh": "trap '' TERM INT\nwhile true; do sleep 0.2; done\n"})
    done = world.push("main", timeout_s=150)
    assert done.returncode != 0
    assert "did not end within" in done.stderr
    until(lambda: not processes(world, "ci.sh"))


def test_a_deploy_that_fails_keeps_the_push_and_says_how_to_resume(world):
    mended = world.marks / "mended"
    world.commit(
        "down", {"deliver.sh": f'test -e "{mended}" || {{ echo no cluster answers; exit 4; }}\n{world.note("deliver")}'}
    )
    done = world.push("main")
    assert done.returncode == 0
    assert world.ref("main") == world.head
    assert "no cluster answers" in done.stderr
    assert "what served before goes on serving" in done.stderr
    assert str(world.bare / "deploy") in done.stderr
    mended.touch()
    again = subprocess.run(
        [str(world.bare / "deploy")], env=world.env, capture_output=True, text=True, check=False, timeout=60, cwd="/"
    )
    assert again.returncode == 0, again.stderr
    assert world.did("deliver") == [world.head]


def test_a_deploy_without_end_is_ended_and_lets_go_of_the_environment(world):
    world.settings(deploy_limit_s=2, deploy_grace_s=1)
    world.commit("endless", {"deliver.sh": "while true; do sleep 0.2; done\n"})
    done = world.push("main", timeout_s=150)
    assert "dev does not have" in done.stderr
    until(lambda: not processes(world, "deliver.sh"))
    world.settings(deploy_limit_s=60)
    world.commit("quick", {"deliver.sh": world.note("deliver")})
    world.push("main")
    assert world.did("deliver") == [world.head]


def test_a_killed_deploy_leaves_nothing_running_and_the_next_one_goes_on(slow_deploy):
    world = slow_deploy
    world.settings(deploy_grace_s=1)
    pushing = world.start("main")
    began(world, "deliver")
    for pid in processes(world, "frame-", "deploy "):
        os.kill(pid, signal.SIGKILL)
    finish(pushing)
    until(lambda: not processes(world, "deliver.sh"))
    go(world, "deliver")
    world.commit("next", {"a": "1"})
    assert world.push("main").returncode == 0
    assert world.did("deliver") == [world.head]
