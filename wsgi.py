"""What the flask command loads, and any other WSGI server could."""

import sys

from grafient import create_app
from grafient.config import ConfigError

try:
    app = create_app()
except ConfigError as error:
    sys.exit(f"Grafient can't start: {error}")
