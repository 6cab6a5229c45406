"""gunicorn reads this by itself. PORT (Heroku's, or make run's) and WEB_CONCURRENCY are the environment's to set."""

import os

bind = f"0.0.0.0:{os.environ.get('PORT') or '5000'}"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
worker_class = "gthread"
threads = 8  # Test Connection keeps one for up to 10 seconds
preload_app = True
timeout = 60
control_socket_disable = True
