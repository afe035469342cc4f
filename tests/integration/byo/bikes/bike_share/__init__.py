"""The use case: is a bike station full? Sixty made-up days of twenty stations."""
