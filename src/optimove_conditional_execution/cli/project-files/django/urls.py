"""Where the gate is: /optimove."""

from __future__ import annotations

from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from views import optimove

# Optimove has no CSRF token to send: its signature says who it is.
urlpatterns = [path("optimove", csrf_exempt(optimove))]
