from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightdeck.lab.users import Arrival
from flightdeck.load.plan import PLAN_ENV, LoadPlan, Refused, address_of, checked, read_plan, schedule


def plan(**changes: object) -> LoadPlan:
    facts: dict = {
        "url": "http://127.0.0.1:8080",
        "rate_per_s": 50.0,
        "seconds": 10.0,
        "requests": "r",
        "outcomes": "o",
    }
    return LoadPlan(**{**facts, **changes})


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("http://127.1.2.3/", ("127.1.2.3", 80)),
        ("http://localhost:3000", ("localhost", 3000)),
        ("http://gateway", ("gateway", 80)),
        ("http://gateway.here.svc:10080", ("gateway.here.svc", 10080)),
        ("http://gateway.here.svc.cluster.local", ("gateway.here.svc.cluster.local", 80)),
    ],
)
def test_load_goes_to_this_machine_or_to_a_service(url: str, address: tuple[str, int]):
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com", "http://10.0.0.1", "http://128.0.0.1", "https://127.0.0.1", "127.0.0.1:80", "http://",
        "http://svc.evil.com", "http://a.b.svc.com", "http://a.svc", "http://a.b.c.svc", "http://[::1]:80",
        "http://127.0.0.1.example.com", "http://u:p@127.0.0.1", "http://127.0.0.1/path", "http://127.0.0.1:x",
        "http://0x7f000001.com", "http://127.0.0.1?a=b",
    ],
)  # fmt: skip
def test_load_goes_nowhere_else(url: str):
    with pytest.raises(Refused):
        address_of(url)


@pytest.mark.parametrize(
    "changes",
    [{"rate_per_s": 0}, {"rate_per_s": 2001}, {"seconds": 0}, {"seconds": 901}, {"rate_per_s": 1000, "seconds": 500}],
)
def test_rate_time_and_count_are_bounded(changes: dict):
    with pytest.raises(Refused):
        checked(plan(**changes))


@given(st.floats(1, 500), st.floats(0.5, 20), st.integers(1, 7))
def test_requests_begin_at_a_constant_rate_and_come_in_turn(rate_per_s: float, seconds: float, count: int):
    own = plan(rate_per_s=rate_per_s, seconds=seconds)
    requests = [Arrival(9, f"{number}", b"{}") for number in range(count)]
    made = schedule(requests, own)
    assert len(made) == own.total
    assert [it.entity_id for it in made] == [f"{number % count}" for number in range(own.total)]
    assert all(abs(it.at_us - 1e6 * number / rate_per_s) <= 1 for number, it in enumerate(made))


def test_nothing_to_send_is_refused():
    with pytest.raises(Refused, match="no requests"):
        schedule([], plan())


def test_the_environment_names_the_plan(tmp_path: Path):
    (tmp_path / "plan").write_bytes(msgspec.json.encode(plan()))
    assert read_plan({PLAN_ENV: str(tmp_path / "plan")}) == plan()
    with pytest.raises(Refused, match=PLAN_ENV):
        read_plan({})
    (tmp_path / "plan").write_bytes(msgspec.json.encode(plan(url="http://example.com")))
    with pytest.raises(Refused, match="load goes only"):
        read_plan({PLAN_ENV: str(tmp_path / "plan")})
    (tmp_path / "plan").write_text("{")
    with pytest.raises(Refused):
        read_plan({PLAN_ENV: str(tmp_path / "plan")})
