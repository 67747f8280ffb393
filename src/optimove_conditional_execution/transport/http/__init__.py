"""The wire: one request, one answer. The only room that knows httpx.

Everything above sees `Response`, `TransportError` and `DeadlineExceeded`, so that another HTTP engine can take this
one's place.
"""

from optimove_conditional_execution.transport.http.async_engine import AsyncHttpEngine
from optimove_conditional_execution.transport.http.engine import HttpEngine
from optimove_conditional_execution.transport.http.in_process import local_async_client, local_client

__all__ = ["AsyncHttpEngine", "HttpEngine", "local_async_client", "local_client"]
