"""The engines on httpx and httpx2: one request, one response. The only package that imports httpx.

Callers see `Response`, `TransportError` and `DeadlineExceeded` only, so that another engine can replace this one.
"""

from .engine import AsyncHttpEngine, HttpEngine, local_async_client, local_client

__all__ = ["AsyncHttpEngine", "HttpEngine", "local_async_client", "local_client"]
