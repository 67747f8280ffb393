"""Work of an async receiver that goes on when the request that brought it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar, final

from optimove_conditional_execution.settings import seconds

R = TypeVar("R")

DRAIN_SECONDS: Final = 10.0
"""How long `drain` waits: longer than most tenants' timeout, and shorter than most supervisors wait for a process."""


@final
class BackgroundTasks:
    """Tasks that are kept until they end: asyncio itself holds only weak references."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Run a coroutine in a task of its own, with the caller's context variables."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, within: float) -> bool:
        """Wait until the tasks of this event loop are over, those too that begin meanwhile.

        Args:
            within: Seconds at most.

        Returns:
            Whether they are over.

        Raises:
            ConfigurationError: `within` is not a number of 0 or more.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds("within", within)
        while tasks := [task for task in list(self._tasks) if task.get_loop() is loop]:
            left = end - loop.time()
            if left <= 0:
                return False
            await asyncio.wait(tasks, timeout=None if left == float("inf") else left)
            await asyncio.sleep(0)  # for those that end to leave the set
        return True
