"""Runs in a process of its own: the generic pipelines on the use case that the environment names, source to registry.

`python make_model.py SPEC NOW TRACKING_URI` prints one JSON line: what was made, and what the model says offline.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import load_model_spec
from pipelines.data.ingest import ingest_days
from pipelines.data.lake import Lake
from pipelines.features import registry
from pipelines.features.build import build_features
from pipelines.features.consistency import check
from pipelines.features.export import export
from pipelines.features.materialize import materialize
from pipelines.features.training_frame import training_frame
from pipelines.features.truncation import assert_no_future
from pipelines.gates.gate import gate_candidate
from pipelines.gates.measure import scores
from pipelines.registry.artefacts import opened
from pipelines.registry.versions import load_champion, promote, register, verify_version
from pipelines.training.train import train_candidate
from pipelines.use_case import load_use_case


def main(spec_file: str, now: str, tracking_uri: str) -> None:
    now_utc, spec = dt.datetime.fromisoformat(now), load_model_spec(Path(spec_file))
    layout, use_case = StateLayout.from_env(), load_use_case()
    lake = Lake(layout.lake)
    days = list(ingest_days(use_case, lake, layout.quarantine, days_per_commit=30))
    build_features(use_case, lake, use_case.day_start_utc(use_case.first_day), now_utc)
    looked_back = assert_no_future(use_case, lake, now_utc)
    export(lake, layout)
    changes = registry.apply(layout)
    candidate = train_candidate(spec, layout, until_utc=now_utc, tracking_uri=tracking_uri)
    report = gate_candidate(candidate, None)
    ref = register(candidate, report)
    promote(ref, layout=layout, tracking_uri=tracking_uri)
    champion = load_champion(spec.name, tracking_uri=tracking_uri)
    verified = verify_version(spec.name, ref.version, layout, tracking_uri=tracking_uri)
    store = registry.open_store(layout)
    written = materialize(layout, now_utc, store=store)
    checked = check(use_case, lake, store, now_utc)

    moment = dt.timedelta(microseconds=1)
    asked = use_case.entity_frame(lake, now_utc, now_utc + moment, now_utc + dt.timedelta(days=1))
    frame = training_frame(layout, spec.feature_service, asked, store=store).frame
    manifest, onnx = opened(layout.artefacts, ref.sha256)
    offline = dict(zip(frame["entity_id"].to_list(), scores(manifest, onnx, frame).tolist(), strict=True))
    print(
        json.dumps(
            {
                "use_case": use_case.name,
                "days": sorted({f"{day.table} {day.status.value}" for day in days}),
                "looked_back": looked_back,
                "changes": sorted(f"{change.kind} {change.name}" for change in changes if change.what == "added"),
                "verdict": report.verdict.value,
                "reason": report.reason,
                "champion": champion.model_dump(exclude_none=True) if champion else None,
                "card_rows": verified.card.holdout_rows,
                "materialized": {item.view: item.rows for item in written},
                "mismatches": [str(item) for item in checked.mismatches],
                "compared": checked.compared,
                "offline": offline,
                "modules": {
                    name: str(module.__file__)
                    for name, module in sys.modules.items()
                    if name.partition(".")[0] in {"feature_repo", "pipelines", "flightdeck"}
                    and getattr(module, "__file__", None)
                },
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
