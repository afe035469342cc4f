"""What the parts agree on: types, and the checks that belong to a type. No I/O beyond reading a file it is given."""
