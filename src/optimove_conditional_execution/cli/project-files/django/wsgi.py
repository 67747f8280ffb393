"""The service, for any WSGI server."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
application = get_wsgi_application()

# Django imports views at the first request; a setting that is missing should stop the service at its start.
from views import receiver  # noqa: E402 - Django must be set up first

receiver()
