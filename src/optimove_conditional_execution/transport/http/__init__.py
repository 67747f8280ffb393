"""The wire: one request, one answer. The only room that knows httpx.

Everything above sees `Response`, `TransportError` and `DeadlineExceeded`, so that another HTTP engine can take this
one's place.
"""

from .async_engine import AsyncHttpEngine
from .engine import HttpEngine
from .in_process import local_async_client, local_client

__all__ = ["AsyncHttpEngine", "HttpEngine", "local_async_client", "local_client"]
