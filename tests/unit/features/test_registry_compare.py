import pytest

from pipelines.features.registry_changes import Described, Effect, compare


def objects(*items: Described) -> dict[tuple[str, str], Described]:
    return {(item.kind, item.name): item for item in items}


VIEW = Described("feature view", "weather", {"join keys": "origin", "feature temp_f": "Float32", "ttl": "6:00:00"})
SERVICE = Described("feature service", "late_v1", {"features of weather": "temp_f", "order of views": "weather"})


def changed(item: Described, **facts: str) -> Described:
    return Described(
        item.kind, item.name, {**item.facts, **{key.replace("__", " "): text for key, text in facts.items()}}
    )


def test_equal_objects_have_no_change():
    assert compare(objects(VIEW, SERVICE), objects(SERVICE, VIEW)) == []


def test_a_new_object_adds_and_a_lost_one_destroys():
    [added] = compare(objects(VIEW), objects(VIEW, SERVICE))
    [removed] = compare(objects(VIEW, SERVICE), objects(VIEW))
    assert (added.effect, removed.effect) == (Effect.ADDS, Effect.DESTROYS)


def test_a_feature_more_in_a_view_is_no_destruction():
    [change] = compare(objects(VIEW), objects(changed(VIEW, feature__humid_pct="Float32")))
    assert change.effect is Effect.CHANGES


@pytest.mark.parametrize(
    "after",
    [
        Described(VIEW.kind, VIEW.name, {"join keys": "origin", "ttl": "6:00:00"}),
        changed(VIEW, feature__temp_f="Int64"),
        changed(VIEW, join__keys="origin, dest"),
    ],
    ids=["feature removed", "type changed", "keys changed"],
)
def test_what_breaks_readers_of_a_view_destroys(after):
    [change] = compare(objects(VIEW), objects(after))
    assert change.effect is Effect.DESTROYS


@pytest.mark.parametrize("fact", ["features__of__weather", "order__of__views"])
def test_a_service_never_changes(fact):
    [change] = compare(objects(SERVICE), objects(changed(SERVICE, **{fact: "other"})))
    assert change.effect is Effect.DESTROYS


def test_words_for_people_may_change():
    [change] = compare(objects(SERVICE), objects(changed(SERVICE, description="better")))
    assert change.effect is Effect.CHANGES


def test_destructive_changes_come_first():
    before, after = objects(VIEW), objects(SERVICE)
    assert [change.effect for change in compare(before, after)] == [Effect.DESTROYS, Effect.ADDS]
