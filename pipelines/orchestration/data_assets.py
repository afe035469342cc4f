"""Assets of the data: the source's tables in the lake, feature tables, the online store, prediction records, upkeep."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Sequence

import dagster as dg

from feature_repo.transforms import BUILDS
from pipelines.data.ingest import DayResult, Status, ingest_days
from pipelines.orchestration import places
from pipelines.orchestration.days import deliveries, parse, span_utc
from pipelines.orchestration.failures import RETRY, told
from pipelines.orchestration.names import identifier
from pipelines.use_case import SourceTable, UseCase

ONE_RUN = dg.BackfillPolicy.single_run()  # months as one run, not as a pod per day
FIT = "fit_for_the_lake"


class IngestConfig(dg.Config):
    """How to take bad days."""

    # Default: one bad day stops what follows; a backfill, over a past that nobody will mend, goes on without it.
    go_on_without_bad_days: bool | None = None


def days_of(use_case: UseCase) -> dg.DailyPartitionsDefinition:
    """The source's days, in its own zone."""
    return dg.DailyPartitionsDefinition(
        start_date=use_case.first_day.isoformat(),
        end_date=(use_case.last_day + dt.timedelta(days=1)).isoformat(),
        timezone=use_case.time_zone.key,
    )


def lake_key(table: str) -> dg.AssetKey:
    """A table of the source, in the lake."""
    return dg.AssetKey(["lake", table])


def feature_key(view: str) -> dg.AssetKey:
    """A feature table."""
    return dg.AssetKey(["features", view])


def data_assets(use_case: UseCase) -> list[dg.AssetsDefinition]:
    """All of them."""
    tables = [lake_asset(use_case, table) for table in use_case.tables]
    return [*tables, features_asset(use_case), online_asset(use_case), predictions_asset(), upkeep_asset()]


def lake_asset(use_case: UseCase, table: SourceTable) -> dg.AssetsDefinition:
    """One table: its days ingested, each checked as a whole; a quarantined day blocks what follows."""
    check = dg.AssetCheckSpec(
        FIT, asset=lake_key(table.name), blocking=True,
        description="Schema, ranges, nulls, uniqueness, freshness, volume of each day; a bad day is quarantined whole.",
    )  # fmt: skip

    @dg.asset(
        key=lake_key(table.name),
        partitions_def=None if table.static else days_of(use_case),
        backfill_policy=None if table.static else ONE_RUN,
        check_specs=[check],
        retry_policy=RETRY,
        group_name="lake",
        kinds={"deltalake"},
        description=f"Table `{table.name}` of {use_case.name}, key {', '.join(table.key)}."
        + (" Reference data, delivered whole." if table.static else ""),
    )
    def ingested(context: dg.AssetExecutionContext, config: IngestConfig) -> dg.MaterializeResult:
        days = [use_case.first_day] if table.static else parse(context.partition_keys)
        go_on = len(days) > 1 if config.go_on_without_bad_days is None else config.go_on_without_bad_days
        with told():
            results = _ingest(context, use_case, table, days)
            version = places.lake().version(table.name) if places.lake().exists(table.name) else None
        return dg.MaterializeResult(
            metadata=_ingested(results, version),
            check_results=[_checked(check, results, go_on=go_on)],
        )

    return ingested


def _ingest(
    context: dg.AssetExecutionContext, use_case: UseCase, table: SourceTable, days: Sequence[dt.date]
) -> list[DayResult]:
    lake, quarantine, found = places.lake(), places.quarantine(), []
    blocks = [(days[0], days[-1], None)] if table.static else deliveries(use_case, days, places.now_utc())
    for first, last, known_by in blocks:
        for result in ingest_days(use_case, lake, quarantine, first, last, tables=[table.name], now_utc=known_by):
            found.append(result)
            if result.reason:
                context.log.warning(f"{result.table} {result.day} {result.status}: {result.reason}")
    counts = Counter(str(item.status) for item in found)
    states = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    context.log.info(f"{table.name}: {sum(item.written for item in found):,} rows written; days: {states}")
    return found


def _ingested(results: Sequence[DayResult], version: int | None) -> dict[str, dg.MetadataValue]:
    counts = Counter(str(item.status) for item in results)
    seconds = sum(item.seconds for item in results)
    shown: dict[str, dg.MetadataValue] = {
        "rows delivered": dg.MetadataValue.int(sum(item.delivered for item in results)),
        "rows written": dg.MetadataValue.int(sum(item.written for item in results)),
        "rows corrected": dg.MetadataValue.int(sum(item.corrected for item in results)),
        "days": dg.MetadataValue.text(", ".join(f"{number} {name}" for name, number in sorted(counts.items()))),
        "seconds": dg.MetadataValue.float(round(seconds, 3)),
    }
    if version is not None:
        shown["lake version"] = dg.MetadataValue.int(version)
    return shown


def _checked(check: dg.AssetCheckSpec, results: Sequence[DayResult], *, go_on: bool) -> dg.AssetCheckResult:
    """Quarantined days fail; days that are not there (yet) are a warning."""
    bad = [item for item in results if item.status is Status.QUARANTINED]
    absent = [item for item in results if item.status in {Status.MISSING, Status.PENDING}]
    error = bool(bad) and not go_on
    told_first = bad or absent
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=not (bad or absent),
        severity=dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        description=f"{told_first[0].day} {told_first[0].status}: {told_first[0].reason}" if told_first else None,
        metadata={
            "days": len(results), "quarantined": len(bad), "missing or pending": len(absent),
            **({"failures": _failures(bad), "quarantine": _kept_in(bad)} if bad else {}),
        },
    )  # fmt: skip


def _failures(bad: Sequence[DayResult]) -> dg.MetadataValue:
    """The table of failures of every quarantined day."""
    from pipelines.data import quarantine

    records = [
        dg.TableRecord(
            {
                "day": str(item.day), "check": failure.check, "column": failure.column, "expected": failure.expected,
                "found": failure.found, "rows": failure.rows, "for example": "; ".join(failure.examples),
            }
        )
        for item in bad
        for kept in quarantine.find(places.quarantine(), item.table, item.day)
        if kept.resolved is None
        for failure in kept.failures
    ]  # fmt: skip
    return dg.MetadataValue.table(records)


def _kept_in(bad: Sequence[DayResult]) -> str:
    return "\n".join(places.quarantine().where(f"{item.table}/{item.day}") for item in bad)


def features_asset(use_case: UseCase) -> dg.AssetsDefinition:
    """All feature tables; any of them can be built alone."""
    specs = [
        dg.AssetSpec(
            feature_key(view), deps=[lake_key(table) for table in build.tables], skippable=True, group_name="features",
            kinds={"ibis", "duckdb"}, description=f"{len(build.features)} features per {', '.join(build.keys)}.",
        )
        for view, build in BUILDS.items()
    ]  # fmt: skip

    @dg.multi_asset(
        name="features", specs=specs, can_subset=True, partitions_def=days_of(use_case), backfill_policy=ONE_RUN,
        retry_policy=RETRY,
    )  # fmt: skip
    def features(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        from pipelines.features.build import build_features

        with told():
            first, until = span_utc(use_case, parse(context.partition_keys), places.now_utc())
            if first == until:
                context.log.warning(f"nothing to build: {first:%Y-%m-%d %H:%MZ} lies ahead of the clock")
                return
            views = [view for view in BUILDS if feature_key(view) in context.selected_asset_keys]
            results = build_features(
                use_case, places.lake(), first, until, views=views,
                progress=lambda done: context.log.info(f"{done.view}: {done.rows:,} rows in {done.seconds:.1f} s"),
            )  # fmt: skip
        for done in results:
            yield dg.MaterializeResult(
                asset_key=feature_key(done.view),
                metadata={
                    "rows": done.rows, "lake version": done.version, "seconds": round(done.seconds, 3),
                    "from": first.isoformat(), "until": until.isoformat(),
                },
            )  # fmt: skip

    return features


def online_asset(use_case: UseCase) -> dg.AssetsDefinition:
    """The online store: brought up to the end of the day, or to now."""

    @dg.asset(
        name="online_features", deps=[feature_key(view) for view in BUILDS], partitions_def=days_of(use_case),
        backfill_policy=ONE_RUN, retry_policy=RETRY, group_name="features", kinds={"feast", "redis"},
        description="The newest row per key of every feature view, in the online store.",
    )  # fmt: skip
    def online_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from pipelines.features.materialize import materialize

        with told():
            _, until = span_utc(use_case, parse(context.partition_keys), places.now_utc())
            done = materialize(
                places.layout(), until, lake=places.lake(),
                progress=lambda it: context.log.info(f"{it.view}: {it.rows:,} rows in {it.seconds:.1f} s"),
            )  # fmt: skip
        return dg.MaterializeResult(
            metadata={
                "rows": sum(item.rows for item in done),
                **{f"rows {item.view}": item.rows for item in done},
                "until": until.isoformat(),
                "seconds": round(sum(item.seconds for item in done), 3),
            }
        )

    return online_features


def predictions_asset() -> dg.AssetsDefinition:
    """What the predictors answered."""

    @dg.asset(
        key=lake_key("predictions"), retry_policy=RETRY, group_name="lake", kinds={"deltalake", "redis"},
        description="Prediction records, moved from the stream into the lake, each exactly once.",
    )  # fmt: skip
    def predictions(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from pipelines.data.predictions import drain

        with told():
            server = places.streams()
            if server is None:
                raise ValueError(f"no streams server is named; set {places.STREAMS_ENV}")
            with server:
                done = drain(server, places.lake(), now=places.now_utc, consumer=identifier(context.asset_key.path[-1]))
        if done.unreadable:
            context.log.warning(f"{done.unreadable} entries are no prediction records; they were put aside")
        return dg.MaterializeResult(
            metadata={"rows written": done.written, "already there": done.repeated, "unreadable": done.unreadable}
        )

    return predictions


def upkeep_asset() -> dg.AssetsDefinition:
    """The nightly housekeeping."""

    @dg.asset(
        key=lake_key("upkeep"), retry_policy=RETRY, group_name="upkeep", kinds={"deltalake"},
        description="Compacts the lake, and removes what nothing needs any more: `flightdeck data upkeep`.",
    )  # fmt: skip
    def upkeep(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with told():
            done = places.keep_up(context.log.info)
        return dg.MaterializeResult(metadata=done)

    return upkeep
