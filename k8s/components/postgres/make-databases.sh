#!/bin/bash
# First start only: one database for each part, owned by a role of the same name, closed to the others.
set -eu
for name in mlflow dagster feast optuna; do
  variable="$(echo "$name" | tr a-z A-Z)_PASSWORD"
  psql -v ON_ERROR_STOP=1 -v name="$name" -v password="${!variable}" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
SQL
done
