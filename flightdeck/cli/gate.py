"""`flightdeck gate`: PROMOTE, HOLD or REJECT, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from flightdeck.cli.models import Tracking, told
from flightdeck.cli.options import State, layout_of

app = typer.Typer(add_completion=False)
EXIT = {"PROMOTE": 0, "REJECT": 1, "HOLD": 4}  # 2 and 3 are taken: usage, missing dependencies


@app.command(
    help="Judge a candidate (a registered VERSION of NAME, or the run id of a training) against the champion.\n\n"
    "A run is registered with its verdict and a signed card. Exit code: 0 PROMOTE, 1 REJECT, 4 HOLD.\n\n"
    "Example: flightdeck gate late 2e05d7630e054401bb1c9c845f3ea082 --promote"
)
def gate(
    name: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str, typer.Argument(help="Version number, or run id.")],
    promote: Annotated[bool, typer.Option("--promote", help="Make it champion when the verdict is PROMOTE.")] = False,
    state: State = None,
    tracking_uri: Tracking = None,
) -> None:
    """Gate, register when it is a run, print each gate."""
    with told("gate"):
        from pipelines.registry import oci, versions
        from pipelines.registry.judging import judge
        from pipelines.registry.mlflow_adapter import MlflowRegistry, tracking_uri_or_env

        layout, uri = layout_of(state), tracking_uri_or_env(tracking_uri)
        run_id = str(MlflowRegistry(uri).version(name, version).run_id) if version.isdigit() else version
        candidate, _, report = judge(name, run_id, layout, uri)
        for item in report.results:
            print(f"{item.verdict.value:<8}{item.gate:<13}{item.reason}")
        print(f"\n{report.verdict.value}: {report.reason}\npage: {report.page}")
        if not version.isdigit():
            ref = versions.register(candidate, report)
            print(f"registered {ref.name} v{ref.version} ({ref.sha256})")
            if report.verdict.value != "REJECT":
                ref = oci.publish(ref, layout.artefacts / ref.sha256, tracking_uri=uri)  # nothing in the lab
            if promote and report.verdict.value == "PROMOTE":
                versions.promote(ref, layout=layout, tracking_uri=uri)
                print(f"champion of {ref.name} is v{ref.version}")
        elif promote and report.verdict.value == "PROMOTE":
            ref = versions.find_version(name, version, tracking_uri=uri)
            versions.promote(ref, layout=layout, tracking_uri=uri)
            print(f"champion of {ref.name} is v{ref.version}")
    raise typer.Exit(EXIT[report.verdict.value])
