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
        from pipelines import stores
        from pipelines.features.export import ensure_export
        from pipelines.gates.gate import gate_candidate
        from pipelines.registry import oci, versions
        from pipelines.registry.mlflow_adapter import MlflowRegistry, RegistryRefused, tracking_uri_or_env
        from pipelines.training.candidate import load_candidate

        layout, uri = layout_of(state), tracking_uri_or_env(tracking_uri)
        run_id = str(MlflowRegistry(uri).version(name, version).run_id) if version.isdigit() else version
        candidate = load_candidate(run_id, layout, uri)
        if candidate.spec.name != name:
            raise RegistryRefused(f"run {run_id} is a candidate of {candidate.spec.name}, not of {name}")
        if stores.scratch(layout):  # a pod begins with none; the rows are joined again from what training read
            ensure_export(stores.lake(layout), layout, candidate.facts.digests.table_versions)
        champion = versions.load_champion(name, tracking_uri=uri)
        if champion:
            versions.fetch(champion, layout, tracking_uri=uri)
        report = gate_candidate(candidate, champion)
        for item in report.results:
            print(f"{item.verdict.value:<8}{item.gate:<13}{item.reason}")
        print(f"\n{report.verdict.value}: {report.reason}\npage: {report.page}")
        if not version.isdigit():
            ref = versions.register(candidate, report)
            print(f"registered {ref.name} v{ref.version} ({ref.sha256})")
            if report.verdict.value == "PROMOTE":
                ref = oci.publish(ref, layout.artefacts / ref.sha256, tracking_uri=uri)  # nothing in the lab
            if promote and report.verdict.value == "PROMOTE":
                versions.promote(ref, layout=layout, tracking_uri=uri)
                print(f"champion of {ref.name} is v{ref.version}")
        elif promote and report.verdict.value == "PROMOTE":
            ref = versions.find_version(name, version, tracking_uri=uri)
            versions.promote(ref, layout=layout, tracking_uri=uri)
            print(f"champion of {ref.name} is v{ref.version}")
    raise typer.Exit(EXIT[report.verdict.value])
