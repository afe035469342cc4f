"""MLflow's command line with the tracking database in the place of the word STORE.

The database's address holds its password, and what stands among a process's arguments is in every list of processes.
"""

import os
import sys

from mlflow.cli import cli

cli([os.environ["MLFLOW_BACKEND_STORE_URI"] if word == "STORE" else word for word in sys.argv[1:]])
