import polars as pl
import pytest

from pipelines.features.consistency import CheckResult
from pipelines.features.training_frame import TrainingFrameError, in_order

ENTITY = pl.DataFrame({"row_id": [3, 1, 2]}, schema={"row_id": pl.Int64})


def joined(*ids: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"row_id": list(ids), "x": [float(number) for number in ids]}, schema={"row_id": pl.Int64, "x": pl.Float32}
    )


def test_joined_rows_come_back_in_the_order_of_the_entities():
    assert in_order(ENTITY, joined(1, 2, 3))["x"].to_list() == [3, 1, 2]


@pytest.mark.parametrize("ids", [(1, 2), (1, 2, 3, 3), (1, 2, 4), (1, 1, 2)], ids=str)
def test_a_row_lost_doubled_or_foreign_is_an_error(ids):
    with pytest.raises(TrainingFrameError, match="must keep each row once"):
        in_order(ENTITY, joined(*ids))


def test_comparing_nothing_is_not_equality():
    assert not CheckResult({"weather": 0}, []).equal
    assert CheckResult({"weather": 1}, []).equal
