"""The clients: one method a call to Optimove, and `send` for any other operation."""

from optimove_conditional_execution.client.async_client import AsyncOptimoveClient
from optimove_conditional_execution.client.sync_client import OptimoveClient

__all__ = ["AsyncOptimoveClient", "OptimoveClient"]
