"""`flightdeck ci images`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Names = Annotated[list[str] | None, typer.Argument(help="predictor, pipelines, mlflow, operator; default: all.")]


def images(
    names: Names = None,
    budget: Annotated[
        Path | None, typer.Option("--budget", exists=True, dir_okay=False, help="Default: images/budget.yaml.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", exists=True, dir_okay=False, help="Default: images/vulnerabilities.yaml.")
    ] = None,
) -> None:
    """Build each image, weigh it, list what is in it, look up what is known against that, and start it shut in.

    Bills of materials go to ci/sbom of the state folder. FLIGHTDECK_SCANNER names who looks up: trivy, or osv with
    FLIGHTDECK_ADVISORIES=folder.

    Example: FLIGHTDECK_SCANNER=trivy flightdeck ci images predictor
    """
    import datetime as dt
    import os

    from flightdeck.cli.ci import finish
    from flightdeck.cli.images import chosen
    from flightdeck.cli.options import layout_of
    from flightdeck.cluster.names import CHECKOUT, IMAGES
    from flightdeck.delivery.images import gate

    wanted = chosen(names)
    finish(
        lambda: gate.judge(
            wanted, root=CHECKOUT, state=layout_of(None).root, environment=os.environ,
            today=dt.datetime.now(dt.UTC).date(), all_names=IMAGES, budget=budget, policy_file=policy,
            tell=lambda it: print(f"... {it}", flush=True),
        )
    )  # fmt: skip
