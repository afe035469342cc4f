"""The committed sample is the source's own."""

from pipelines.flights import source
from pipelines.flights.use_case import USE_CASE


def test_its_days_equal_those_of_the_source_but_for_what_earlier_days_tell():
    sample = source.sample()
    assert {table.name for table in USE_CASE.tables} == set(sample)
    for table in USE_CASE.tables:
        for (day,), rows in sample[table.name].group_by("day"):
            # The stand-in for a missing tail number comes from earlier flights, which the sample does not have.
            whole = table.read_day(day)
            if table.static:
                assert rows.join(whole, on=whole.columns, how="anti", nulls_equal=True).is_empty()
            else:
                kept = [name for name in whole.columns if name != "planned_tailnum"]
                assert rows.select(kept).equals(whole.select(kept))
