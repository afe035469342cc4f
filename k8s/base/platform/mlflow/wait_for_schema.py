"""Wait until the tracking database has the schema of this image: the migration Job makes it, one writer for all."""

import os
import sys
import time
from pathlib import Path

import mlflow
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory

WAIT_S = 180

config = Config()
config.set_main_option("script_location", str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
wanted = ScriptDirectory.from_config(config).get_current_head()
engine = sqlalchemy.create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"], connect_args={"connect_timeout": 3})
deadline, found = time.monotonic() + WAIT_S, "no answer yet"
while time.monotonic() < deadline:
    try:
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar() or "none"
    except sqlalchemy.exc.SQLAlchemyError as error:
        found = str(error.__cause__ or error).strip().splitlines()[0]
    if found == wanted:
        sys.exit(0)
    time.sleep(1)
sys.exit(
    f"the tracking database has not the schema of this image after {WAIT_S} s: wanted {wanted}, found {found}; "
    "see the Job mlflow-migrate. After a step back to an older image, restore the backup that belongs to it."
)
