"""What the flask command loads, and any other WSGI server could."""

import os
import sys

from grafient import create_app, jobs
from grafient.config import ConfigError

os.umask(0o077)  # a database, a log or a backup that is made from here on is its owner's alone
jobs.leave_no_core()
try:
    app = create_app()
except ConfigError as error:
    sys.exit(f"Grafient can't start: {error}")
