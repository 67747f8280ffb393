"""Django's settings. To add the gate to a project of yours, take `gate.py`, `views.py`, and the line in `urls.py`."""

from __future__ import annotations

ROOT_URLCONF = "urls"

# A longer body than the receiver's own limit is not read; leave this out where other views take larger ones.
DATA_UPLOAD_MAX_MEMORY_SIZE = 262_144

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"]},
}
