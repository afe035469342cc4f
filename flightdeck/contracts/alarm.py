"""What the monitor says of one model on one day: every check with its answer, and the alarms among them."""

from __future__ import annotations

import datetime as dt
import enum

import pydantic


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Kind(enum.StrEnum):
    """Which way a served model rots, or which check looked for it."""

    SKEW = "skew"  # served features differ from the ones recomputed offline, as of the request
    DRIFT = "drift"  # inputs or answers are distributed otherwise than in the training window
    CONSTANT = "constant"  # an input stands still
    OUTLIERS = "outliers"  # values far outside of everything that was trained on
    UNSEEN = "unseen"  # categories that training never saw
    VOLUME = "volume"  # far fewer rows than on such a day
    CONCEPT = "concept"  # outcomes follow the answers otherwise than on the holdout
    FEEDBACK = "feedback"  # the answers change which outcomes are logged, or the outcomes themselves


class Cause(enum.StrEnum):
    """Why served features differ from the recomputed ones."""

    MISSING = "missing"  # the store had no values: the defaults were served
    STALE = "stale"  # values of an earlier time
    ORDER = "order"  # values of another feature stand in its column
    TYPE = "type"  # rounded or cut by a narrower type
    UNIT = "unit"  # a constant factor
    TRANSFORM = "transform"  # another function of the same inputs
    CONSTANT = "constant"  # one value for all
    VALUE = "value"  # they differ, and none of the above explains it


class Status(enum.StrEnum):
    """A check's answer."""

    OK = "ok"
    ALARM = "alarm"
    REPORTED = "reported"  # it moved, but that alone is no alarm: bound to the season, or within the policy
    NO_DATA = "no data"  # it could not be computed, which is not the same as ok


class Remedy(enum.StrEnum):
    """What an alarm asks for."""

    INCIDENT = "incident"  # something is broken: mend it; training on it would learn the fault
    RETRAIN = "retrain"  # the world moved: a model of newer data may do better
    LOOK = "look"  # a person has to judge


class Check(_Strict):
    """One check of one day.

    Args:
        subject: features, a view, `answers`, `outcomes` or `rows`.
        value, threshold: in the unit of the check; the alarm begins above the threshold. None: not computed.
        reason: one sentence for people; for NO_DATA what was missing.
    """

    kind: Kind
    subject: str
    status: Status
    value: float | None
    threshold: float | None
    reason: str


class Alarm(_Strict):
    """What a person or the governor acts on: which, since when, how sure, what to do.

    Args:
        cause: of a skew.
        features: those concerned, the most telling first; empty when it is about all rows.
        since: local day from which it is to be seen.
        value, threshold: as in `Check`.
        false_per_month: how many such alarms a month of clean data would bring, by calibration; 0: none was ever seen.
        also: what moved with it and is taken for its consequence.
        page: of the day's report, relative to the folder of reports; `flightdeck monitor` draws it.
    """

    model: str
    version: str
    release: str
    day: dt.date
    kind: Kind
    cause: Cause | None = None
    subject: str
    features: tuple[str, ...] = ()
    since: dt.date
    rows: int
    value: float
    threshold: float
    false_per_month: float
    sentence: str
    how_sure: str
    what_to_do: str
    remedy: Remedy
    also: tuple[str, ...] = ()
    page: str

    @property
    def key(self) -> str:
        """Names the same trouble on successive days, so that it is told once."""
        return "/".join(
            (self.model, self.version, self.kind.value, self.cause.value if self.cause else "", self.subject)
        )


def page_path(model: str, version: str, day: dt.date) -> str:
    """Of a day's page, relative to the folder of reports."""
    return f"monitoring/{model}/{day}-v{version}.html"


class Daily(_Strict):
    """One day of one model version, for the pictures: counts, and the quality of its matured answers."""

    day: dt.date
    rows: int
    matured: int
    mean_score: float | None
    mean_label: float | None
    metric: float | None


class MonitorReport(_Strict):
    """Everything the monitor found on one local day of one version.

    Args:
        at: the clock when it looked.
        metric: name of the quality metric of `daily`.
        drift: feature -> how far the day's rows moved, as a share of the furthest training day (1 is as far).
        shares: feature -> share of the day's rows in each tenth of its matched training distribution; 0.1 each when
            nothing moved.
    """

    model: str
    version: str
    release: str
    day: dt.date
    at: dt.datetime
    rows: int
    metric: str
    checks: tuple[Check, ...]
    alarms: tuple[Alarm, ...]
    daily: tuple[Daily, ...] = ()
    drift: dict[str, float] = pydantic.Field(default_factory=dict)
    shares: dict[str, tuple[float, ...]] = pydantic.Field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The strongest answer: an alarm, else no data when nothing could be computed, else ok."""
        if self.alarms:
            return Status.ALARM
        computed = any(check.status is not Status.NO_DATA for check in self.checks)
        return Status.OK if computed else Status.NO_DATA
