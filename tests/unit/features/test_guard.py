import pytest

from pipelines.features.guard import refused, words
from pipelines.features.registry_changes import Change, Described, Effect, compare

OBJECTS = [
    Described("entity", "airport", {"join keys": "origin", "value type": "STRING"}),
    Described("entity", "tail", {"join keys": "tailnum", "value type": "STRING"}),
    Described("source", "weather_batch", {"source path": "x"}),
    Described(
        "feature view",
        "weather",
        {"join keys": "origin", "source": "weather_push", "feature rain": "Float32", "feature fog": "Float32"},
    ),
    Described("feature view", "plane", {"join keys": "tailnum", "source": "plane_batch", "feature age": "Float32"}),
    Described("on-demand view", "calendar", {"feature hour": "Float32", "input at": "Int64", "transformation": "f"}),
    Described("feature service", "v1", {"features of weather": "rain", "features of calendar": "hour"}),
    Described("feature service", "v2", {"features of weather": "rain, fog", "features of plane": "age"}),
]
BEFORE = {(item.kind, item.name): item for item in OBJECTS}


def without(*names: str) -> list[Change]:
    return compare(BEFORE, {key: item for key, item in BEFORE.items() if item.name not in names})


def altered(kind: str, name: str, **facts: str | None) -> list[Change]:
    item = BEFORE[kind, name]
    merged = {**item.facts, **{key.replace("__", " "): value for key, value in facts.items()}}
    kept = {key: value for key, value in merged.items() if value is not None}
    return compare(BEFORE, {**BEFORE, (kind, name): Described(kind, name, kept)})


@pytest.mark.parametrize("name", ["v1", "weather", "calendar", "airport", "weather_batch"])
def test_what_a_protected_service_reads_cannot_be_removed(name):
    [(change, service)] = refused(without(name), BEFORE, ["v1"])
    assert (change.name, service) == (name, "v1")


@pytest.mark.parametrize("name", ["v2", "plane", "tail"])
def test_what_it_does_not_read_can(name):
    assert refused(without(name), BEFORE, ["v1"]) == []


@pytest.mark.parametrize(
    "changes",
    [
        altered("feature view", "weather", feature__rain="Int64"),
        altered("feature view", "weather", feature__rain=None),
        altered("feature view", "weather", join__keys="origin, dest"),
        altered("on-demand view", "calendar", transformation="g"),
        altered("on-demand view", "calendar", input__at="String"),
        altered("entity", "airport", value__type="INT64"),
        altered("feature service", "v1", features__of__weather="rain, fog"),
    ],
    ids=["type", "feature removed", "keys", "function", "input", "entity's type", "service"],
)
def test_a_change_that_breaks_a_reader_is_refused(changes):
    assert len(refused(changes, BEFORE, ["v1"])) == 1


def test_a_feature_of_the_same_view_that_it_does_not_read_may_go():
    assert refused(altered("feature view", "weather", feature__fog=None), BEFORE, ["v1"]) == []
    assert len(refused(altered("feature view", "weather", feature__fog=None), BEFORE, ["v1", "v2"])) == 1


def test_additions_and_harmless_changes_pass():
    assert refused(altered("feature view", "weather", feature__humid="Float32"), BEFORE, ["v1", "v2"]) == []
    assert refused(altered("feature service", "v1", description="better"), BEFORE, ["v1"]) == []


def test_a_protected_service_that_nobody_registered_lets_nothing_be_destroyed():
    """A typing error in its name must not read as `nothing is protected`."""
    assert [service for _, service in refused(without("plane"), BEFORE, ["typo"])] == ["typo"]
    assert refused(compare({}, BEFORE), {}, ["v1"]) == [], "the first apply only adds"


def test_without_protection_nothing_is_refused():
    assert refused(without("v1", "weather"), BEFORE, []) == []


def test_the_words_name_change_reader_and_the_three_steps():
    text = words(refused(without("weather"), BEFORE, ["v1"]))
    assert "feature view weather: removed (read by v1)" in text
    assert "approved or not" in text
    assert text.index("expand") < text.index("roll out") < text.index("contract")
    assert Effect.DESTROYS in {change.effect for change in without("weather")}
