"""The comment is one, ours, and rewritten in place; a token that may not write leaves the summary."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from flightdeck.delivery.comment import MARKER
from flightdeck.delivery.github import OURS, GitHub, GitHubRefused, Run

RUN = Run("o/r", 7, "a" * 40, "https://api.example", "https://github.com/o/r/actions/runs/1", "token")


class Comments:
    """GitHub's comments of one pull request, a hundred a page."""

    def __init__(self, *told: tuple[str, str], writable: bool = True) -> None:
        self.told = [{"id": n, "user": {"login": who}, "body": body} for n, (who, body) in enumerate(told)]
        self.writable = writable

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer token"
        if request.method == "GET":
            page = int(request.url.params["page"])
            return httpx.Response(200, json=self.told[100 * (page - 1) : 100 * page])
        if not self.writable:
            return httpx.Response(403, json={"message": "Resource not accessible by integration"})
        body = json.loads(request.content)["body"]
        if request.method == "POST":
            self.told.append({"id": len(self.told), "user": {"login": OURS}, "body": body})
            return httpx.Response(201, json={"html_url": "new"})
        number = int(request.url.path.rsplit("/", 1)[1])
        self.told[number]["body"] = body
        return httpx.Response(200, json={"html_url": "same"})


def github(answers: Any) -> GitHub:
    return GitHub(RUN, transport=httpx.MockTransport(answers))


def test_the_second_report_rewrites_the_first():
    there = Comments(*[("someone", "hello")] * 150)
    assert github(there).put_comment(f"{MARKER} one") == "new"
    assert github(there).put_comment(f"{MARKER} two") == "same"
    assert [it["body"] for it in there.told if it["body"].startswith(MARKER)] == [f"{MARKER} two"]


def test_a_strangers_comment_with_our_marker_is_left_alone():
    there = Comments(("mallory", f"{MARKER} approved"))
    assert github(there).put_comment(f"{MARKER} one") == "new"
    assert there.told[0]["body"] == f"{MARKER} approved"


def test_a_token_that_may_not_write_is_told_as_such():
    with pytest.raises(GitHubRefused, match="403"):
        github(Comments(writable=False)).put_comment("x")


def test_the_newest_run_of_a_check_comes_first():
    runs = {
        "check_runs": [
            {"id": 1, "conclusion": "failure"},
            {"id": 5, "conclusion": None},
            {"id": 3, "conclusion": "success"},
        ]
    }
    assert github(lambda request: httpx.Response(200, json=runs)).conclusions("a" * 40, "ci") == [
        None,
        "success",
        "failure",
    ]


def test_the_commit_of_a_pull_request_is_the_one_that_was_pushed(tmp_path, monkeypatch):
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 7, "head": {"sha": "b" * 40}, "title": "$(rm -rf .)"}}))
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    monkeypatch.setenv("GITHUB_SHA", "c" * 40)
    run = Run.from_env()
    assert (run.pull_request, run.head) == (7, "b" * 40)


def test_without_github_the_report_is_a_page_and_a_picture(tmp_path, monkeypatch):
    from flightdeck.cli.ci import app

    for name in ("GITHUB_EVENT_PATH", "GITHUB_TOKEN", "FLIGHTDECK_NEEDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLIGHTDECK_STATE", str(tmp_path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "data.json").write_text('{"gate": "data", "says": ["3,310 flights are as they should be"]}')
    told = CliRunner().invoke(app, ["report"])
    assert told.exit_code == 0, told.output
    assert "no pull request to comment on" in told.output
    page = (tmp_path / "ci" / "report.md").read_text()
    assert "3,310 flights" in page
    assert page.strip() in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "ci" / "report.svg").exists()
