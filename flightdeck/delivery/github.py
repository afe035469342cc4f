"""Adapter of GitHub: one comment of a pull request, updated in place; the result of a commit's check."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from flightdeck.delivery.comment import MARKER

OURS = "github-actions[bot]"  # who GITHUB_TOKEN is; a comment of anybody else is never touched
TIMEOUT_S = 20
PAGES = 20


class GitHubRefused(RuntimeError):
    """GitHub did not do what it was asked; the message says what and why."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workflow's environment says about itself.

    Args:
        pull_request: its number; None on a push.
        head: the commit that people pushed; of a pull request, not GitHub's merge of it.
    """

    repository: str
    pull_request: int | None
    head: str
    api_url: str
    run_url: str
    token: str

    @classmethod
    def from_env(cls) -> Run:
        """Read once; without a workflow everything is empty."""
        told = os.environ
        event: dict[str, Any] = {}
        if (path := told.get("GITHUB_EVENT_PATH")) and Path(path).is_file():
            event = json.loads(Path(path).read_text() or "{}")
        request = event.get("pull_request") or {}
        repository, number = told.get("GITHUB_REPOSITORY", ""), told.get("GITHUB_RUN_ID", "")
        page = f"{told.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}/actions/runs/{number}"
        return cls(
            repository=repository,
            pull_request=request.get("number"),
            head=(request.get("head") or {}).get("sha") or told.get("GITHUB_SHA", ""),
            api_url=told.get("GITHUB_API_URL", "https://api.github.com"),
            run_url=page if number else "",
            token=told.get("GITHUB_TOKEN", ""),
        )


class GitHub:
    """The few calls that we make, with the token of the workflow."""

    def __init__(self, run: Run, *, transport: httpx.BaseTransport | None = None) -> None:
        self._run = run
        self._client = httpx.Client(
            base_url=run.api_url,
            headers={"Authorization": f"Bearer {run.token}", "Accept": "application/vnd.github+json"},
            timeout=TIMEOUT_S,
            transport=transport,
        )

    def put_comment(self, text: str) -> str:
        """Write or rewrite our one comment; returns its address.

        Raises:
            GitHubRefused: for example a fork's token, which may not write.
        """
        where = f"/repos/{self._run.repository}/issues"
        for found in self._comments():
            if found["body"].startswith(MARKER) and found["user"]["login"] == OURS:
                return str(self._ask("PATCH", f"{where}/comments/{found['id']}", {"body": text})["html_url"])
        return str(self._ask("POST", f"{where}/{self._run.pull_request}/comments", {"body": text})["html_url"])

    def conclusions(self, commit: str, check: str) -> list[str | None]:
        """How the runs of a check of this commit ended, the newest first; None: not yet.

        Raises:
            GitHubRefused: GitHub does not answer.
        """
        path = f"/repos/{self._run.repository}/commits/{commit}/check-runs?check_name={check}&app_id=15368"
        runs = sorted(self._ask("GET", path)["check_runs"], key=lambda run: -run["id"])
        return [run["conclusion"] for run in runs]

    def _comments(self) -> Iterator[dict[str, Any]]:
        path = f"/repos/{self._run.repository}/issues/{self._run.pull_request}/comments"
        for page in range(1, PAGES + 1):
            found = self._ask("GET", f"{path}?per_page=100&page={page}")
            yield from found
            if len(found) < 100:
                return

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise GitHubRefused(f"{method} {path}: {error}") from error
        if answer.is_error:
            raise GitHubRefused(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer.json()
