"""The clients: one method per API call, and `send` for any other operation."""

from .async_client import AsyncOptimoveClient
from .sync_client import OptimoveClient

__all__ = ["AsyncOptimoveClient", "OptimoveClient"]
