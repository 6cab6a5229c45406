"""gunicorn reads this by itself. PORT (Heroku's, or make run's) and WEB_CONCURRENCY are the environment's to set."""

import gc
import os

bind = f"0.0.0.0:{os.environ.get('PORT') or '5000'}"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
worker_class = "gthread"
threads = 8  # Test Connection keeps one for up to 10 seconds
preload_app = True
timeout = 60
control_socket_disable = True


def when_ready(_server: object) -> None:
    """What is loaded is shared by the processes that are forked now, as long as no garbage collection writes to it."""
    gc.freeze()
