"""An engine for threads on one for asyncio: an event loop in a daemon thread sends the requests of all other threads.

A file of its own, since it alone runs an event loop below the drivers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, TypeVar, final

from ..errors import ConfigurationError
from ..fork import detect_fork, reset_after_fork
from ..messages import Response
from ..worker_pool import threads_are_greenlets
from .engine import CLOSED, AsyncEngine, AsyncStream, OutgoingRequest, Stream, aread_all

T = TypeVar("T")

_INHERITED: Final[list[object]] = []
"""The parent's event loops: if they were collected, asyncio would close what a child shares with its parent."""

_CLOSING_SECONDS: Final = 5.0
"""Seconds that `close` waits for the connections to close."""


@final
class LoopThreadEngine:
    """Sends requests from threads over an engine for asyncio; a forked child has its own thread and connections."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Lazy: the thread is started at first use.

        Args:
            engine: The engine; only this object uses it.

        Raises:
            ConfigurationError: gevent has replaced threads by greenlets, and an event loop would block all of them.
        """
        if threads_are_greenlets():
            raise ConfigurationError('engine="aiohttp" needs threads, which gevent has replaced: take engine="httpx".')
        self._engine = engine
        self._is_closed = False
        self._start()
        reset_after_fork(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: weakref.finalize[..., LoopThreadEngine] | None = None
        self._streams: set[AsyncStream] = set()  # that are open

    def after_fork(self) -> None:
        """Drop the parent's thread, which a child does not have."""
        _INHERITED.extend((self._loop, self._streams))
        if self._stop is not None:
            self._stop.detach()
        self._start()

    def open(self, request: OutgoingRequest) -> Stream:
        """Send a request and return the response; the body is read already unless it is read as a stream.

        Raises:
            TransportError: No response came.
            DeadlineExceeded: The deadline passed first.
            ConfigurationError: The engine is closed.
        """
        return self._run(self._open(request))

    async def _open(self, request: OutgoingRequest) -> Stream:
        source = await self._engine.open(request)
        if request.read_until is not None:
            self._streams.add(source)
            return _StreamInLoop(source, self._run, self._streams.discard)
        return _ReceivedResponse(await aread_all(source))  # one switch between threads, rather than one per read

    def close(self) -> None:
        """Close the connections, and end the thread."""
        detect_fork()
        with self._lock:
            self._is_closed = True
        if self._thread is not None and self._stop is not None:
            self._stop()
            self._thread.join(_CLOSING_SECONDS)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        detect_fork()
        with self._lock:  # so that nothing is submitted to a loop that is ending
            if self._is_closed:
                coroutine.close()
                raise ConfigurationError(CLOSED)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ConfigurationError(CLOSED) from None  # while the request was in flight
        except BaseException:
            future.cancel()  # when this thread was interrupted
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            started: Future[tuple[asyncio.AbstractEventLoop, Callable[[], object]]] = Future()
            arguments = (self._engine, self._streams, started)
            self._thread = threading.Thread(target=_serve, args=arguments, name="optimove-aiohttp", daemon=True)
            self._thread.start()
            self._loop, stop = started.result()
            self._stop = weakref.finalize(self, stop)  # also an engine that nobody closes ends its thread
        return self._loop


def _serve(
    engine: AsyncEngine,
    streams: set[AsyncStream],
    started: Future[tuple[asyncio.AbstractEventLoop, Callable[[], object]]],
) -> None:
    async def serve() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stopped.set)

        started.set_result((loop, stop))
        await stopped.wait()
        # Their readers cannot close them any more, and one can have a connection that the engine does not share.
        for stream in tuple(streams):
            await stream.aclose()
        await engine.aclose()

    asyncio.run(serve())


@final
class _ReceivedResponse:
    """A response whose body has been received."""

    is_framed = True

    def __init__(self, response: Response) -> None:
        self.response = replace(response, body=b"")
        self._body = response.body

    def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        """Nothing is open."""


@final
class _StreamInLoop:
    """A response that is read in the event loop."""

    def __init__(
        self,
        source: AsyncStream,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
        on_close: Callable[[AsyncStream], object],
    ) -> None:
        self.response = source.response
        self.is_framed = source.is_framed
        self._source = source
        self._run = run
        self._on_close = on_close

    def read(self) -> bytes:
        block: bytes = self._run(self._source.read())
        return block

    def close(self) -> None:
        with contextlib.suppress(ConfigurationError):  # the engine is closed, and this stream with it
            self._run(self._source.aclose())
        self._on_close(self._source)
