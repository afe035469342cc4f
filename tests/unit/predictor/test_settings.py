from __future__ import annotations

import pydantic
import pytest

from services.predictor.settings import PredictorSettings, complaint

GOOD = {"MODEL_NAME": "late", "MODEL_VERSION": "1", "MODEL_SHA256": "a" * 64}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL_SHA256", "kret"),
        ("ONLINE_REDIS_URL", ":kret@localhost:6379"),
        ("STREAMS_REDIS_URL", "redis://user:kr/kret@localhost"),
        ("MAX_ROWS", "kret"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name_and_without_its_value(monkeypatch, name, value):
    for known, given in (GOOD | {name: value}).items():
        monkeypatch.setenv(f"PREDICTOR_{known}", given)
    with pytest.raises(pydantic.ValidationError) as caught:
        PredictorSettings()
    said = complaint(caught.value)
    assert f"PREDICTOR_{name}: " in said
    assert "kr" not in said
