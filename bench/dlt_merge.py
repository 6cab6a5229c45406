"""dlt merging the rows of a reply into a database: ``.venv-bench/bin/python -m bench.dlt_merge DATABASE_URL FOLDER``.

For each line that is sent, ``empty`` or the path of a reply, it answers with the seconds that took. Importing dlt is
not among them, nor is the pipeline's first run, which makes the tables.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dlt
from dlt.common import json as dlt_json
from sqlalchemy import make_url

KEY = ["date", "model_permaslug", "endpoint_id", "provider_name"]


def main(url: str, folder: str) -> None:
    pipeline = dlt.pipeline("bench", pipelines_dir=folder, destination=_destination(url), dataset_name="raw")
    for line in sys.stdin:
        work = _empty if line.strip() == "empty" else _merge
        started = time.perf_counter()
        work(pipeline, line.strip())
        print(json.dumps(time.perf_counter() - started), flush=True)


def _destination(url: str) -> Any:
    if url.startswith("sqlite"):
        return dlt.destinations.sqlalchemy(url)
    parts = make_url(url)  # dlt wants the folder of a socket where a host stands
    host = quote(str(parts.query["host"]), safe="")
    names = {"host": host, "database": parts.database, "username": parts.username, "password": "-"}
    return dlt.destinations.postgres(names)


def _merge(pipeline: Any, path: str) -> None:
    rows = dlt_json.loadb(Path(path).read_bytes())["data"]
    pipeline.run(rows, table_name="line", write_disposition="merge", primary_key=KEY)


def _empty(pipeline: Any, _line: str) -> None:
    with pipeline.sql_client() as client:
        client.execute_sql(f"DELETE FROM {client.make_qualified_table_name('line')}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
