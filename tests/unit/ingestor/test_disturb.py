import datetime as dt
from collections import Counter

import pytest

from pipelines.data.disturb import Disturbance, disturbed

TOLD = [(number * 1_000_000, b"<event %d>" % number) for number in range(2000)]
ALL = Disturbance(7, repeated_share=0.1, late_share=0.2, late_by=dt.timedelta(minutes=2), unreadable_share=0.05)


def test_without_a_disturbance_events_stay_as_they_are():
    assert list(disturbed(iter(TOLD), Disturbance())) == TOLD


def test_the_same_seed_disturbs_the_same_and_another_one_another():
    first = list(disturbed(iter(TOLD), ALL))
    assert first == list(disturbed(iter(TOLD), ALL))
    assert first != list(disturbed(iter(TOLD), Disturbance(8, 0.1, 0.2, dt.timedelta(minutes=2), 0.05)))


def test_every_event_is_told_and_in_the_order_of_telling():
    told = list(disturbed(iter(TOLD), ALL))
    assert [at_us for at_us, _ in told] == sorted(at_us for at_us, _ in told)
    known = {content: at_us for at_us, content in TOLD}
    copies = Counter(content for _, content in told if content in known)
    assert set(copies) == set(known)
    late = [at_us - known[content] for at_us, content in told if content in known]
    assert 0 <= min(late) < max(late) <= 120_000_000
    assert 100 < sum(count == 2 for count in copies.values()) < 300
    assert 50 < sum(content not in known for _, content in told) < 200


@pytest.mark.parametrize("wrong", [{"late_share": 1.5}, {"repeated_share": -0.1}, {"late_by": dt.timedelta(-1)}])
def test_impossible_shares_are_refused(wrong):
    with pytest.raises(ValueError, match="0 to 1"):
        Disturbance(**wrong)
