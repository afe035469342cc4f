"""Entry point in the bare repository: `python frame-<digest> pre-receive|post-receive|deploy-main|deploy COMMIT`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from flightdeck.delivery.remote import deploys, gate
from flightdeck.delivery.remote.running import PusherGone, tell

INTERRUPTED = 130


def main(argv: list[str], bare: Path) -> int:
    """Run one of them; whatever goes wrong before CI passed refuses the push, in words."""
    doing = argv[0]
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    try:
        if doing == "pre-receive":
            return gate.pre_receive(bare, sys.stdin)
        if doing == "post-receive":
            return deploys.post_receive(bare, sys.stdin)
        return deploys.deploy_main(bare) if doing == "deploy-main" else deploys.deploy(bare, argv[1])
    except KeyboardInterrupt:
        tell({"pre-receive": "interrupted: CI was ended, nothing changed"}.get(doing, "interrupted"))
        return INTERRUPTED
    except (PusherGone, BrokenPipeError):
        return INTERRUPTED  # nobody reads more words
    except Exception as error:
        refused = "refused, nothing changed" if doing == "pre-receive" else "the push is in, but nothing was deployed"
        tell(f"{refused}: {type(error).__name__}: {error}")
        tell("  do: run `make git-remote` again in your checkout; when it stays, the words above are a bug of the hook")
        return 1


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
