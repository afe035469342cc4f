"""Search, fit and export of a candidate."""

import os

# scikit-learn's threads otherwise spin while they wait for each other: on a machine that does other work as well, a
# fit took 46 s that takes 5.5 s with this. Read when the OpenMP library is loaded, hence here, before scikit-learn.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
