"""The clients: one method a call to Optimove, and `send` for any other operation."""

from .async_client import AsyncOptimoveClient
from .sync_client import OptimoveClient

__all__ = ["AsyncOptimoveClient", "OptimoveClient"]
