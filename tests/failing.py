"""A process that fails in one way or another, with everything secret in what fails: ``python -m tests.failing WAY``.

It inserts a row into each table that has one of the SECRETS in every column that takes text or bytes, and lacks
something, so that the database says what is wrong with it.
"""

from __future__ import annotations

import logging
import sys
import threading

from flask import Flask
from sqlalchemy import LargeBinary, String, Text, insert, inspect
from sqlalchemy.exc import DBAPIError

from grafient import create_app, jobs, logs
from grafient.extensions import db
from grafient.jobs import work
from grafient.jobs.queue import GrafientJob, queue
from grafient.jobs.worker import GrafientWorker
from grafient.views import access

SECRETS = {
    "provider key": "sk-or-v1-" + "0a1b2c3d" * 8,
    "password hash": "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
    "email": "canary@birds.example",
    "session token": "kT3v_9sQ2mXw-8ZrLp4YbN6cVfHj1DgEaUoIiRtSxWy",
    "uniquifier": "0123456789abcdef0123456789abcdef",
    "label": "Canary label",
}


def fail(app: Flask) -> None:
    """Try a row in each table, log each refusal with its traceback, and raise the last."""
    last: DBAPIError | None = None
    with app.app_context():
        tables = [table for table in db.metadata.sorted_tables if inspect(db.engine).has_table(table.name)]
        for secret in SECRETS.values():
            for table in tables:
                row = {
                    column.name: secret.encode()
                    if isinstance(column.type, LargeBinary)
                    else secret[: column.type.length]
                    for column in table.columns
                    if isinstance(column.type, (String, Text, LargeBinary))
                }
                if not row:
                    continue
                try:
                    db.session.connection().execute(insert(table), [row])
                except DBAPIError as error:
                    logging.getLogger("grafient.views").exception("an insert into %s failed: %s", table.name, error)
                    last = error
                db.session.rollback()
        db.engine.dispose()
    assert last is not None, "every table took such a row"
    raise last


def in_a_page(app: Flask) -> None:
    """A request that fails."""
    app.add_url_rule("/failing", view_func=access.public(lambda: fail(app)))
    assert app.test_client().get("/failing").status_code == 500


def in_a_job(app: Flask) -> None:
    """A worker's horse whose job fails."""
    work.sync_due.__code__ = (lambda: fail(create_app())).__code__
    work.__dict__.update(fail=fail, create_app=create_app)
    with app.app_context():
        jobs.wake()
        worker = GrafientWorker([queue()], connection=queue().connection, serializer=queue().serializer)
        worker.job_class = GrafientJob
        worker.work(burst=True, logging_level="INFO")


def in_a_fork(app: Flask) -> None:
    """A process of ours, such as the scheduler beside a worker."""
    process = jobs.Forked(target=fail, args=(app,), name="scheduler")
    process.start()
    assert process.wait(60) == 1


def in_a_thread(app: Flask) -> None:
    """A thread that nobody waits for."""
    thread = threading.Thread(target=fail, args=(app,))
    thread.start()
    thread.join()


def in_a_command(app: Flask) -> None:
    """A command: the process itself ends with the fault."""
    fail(app)


WAYS = {way.__name__: way for way in (in_a_page, in_a_job, in_a_fork, in_a_thread, in_a_command)}

if __name__ == "__main__":
    made = create_app()
    assert logs.redact("x") == "x"
    WAYS[sys.argv[1]](made)
