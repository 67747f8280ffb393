"""Call records for logging and metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Final, Protocol, final

from ..deadline import Deadline
from ..errors import APIError, OptimoveError
from ..observers import SafeLogger, notify

_LOGGER: Final = SafeLogger("calls")


@final
@dataclass(frozen=True, slots=True)
class CallRecord:
    """The record of one call, with all its tries. Plain values without bodies, ids or secrets.

    Attributes:
        operation: The name of the client's method, such as `send_webhook_approval`.
        attempts: The number of requests sent; 0 when none could be sent before the deadline.
        status: The HTTP status of the last response; None without one.
        error: The name of the error's class; None when the call succeeded.
        seconds: How long the call took: waiting for rate limit and pool, tries and pauses.
        seconds_left: Seconds left until its deadline when it ended; 0 when that had passed.
        bytes_sent: Bytes of the request bodies.
        bytes_received: Bytes of the response bodies; 0 for a stream.
        ended_at: When it ended, in seconds since 1970.
    """

    operation: str
    attempts: int
    status: int | None
    error: str | None
    seconds: float
    seconds_left: float
    bytes_sent: int
    bytes_received: int
    ended_at: float


class CallObserver(Protocol):
    """An `on_call` object that wraps each call, as an alternative to a plain function.

    Context variables that it sets, such as the current span, are visible to all code of the call.
    """

    def around(self, operation: str, /) -> AbstractContextManager[object]:
        """Return a context manager for a call; it is exited after `__call__`, always without an exception.

        Args:
            operation: The name of the client's method, such as `send_webhook_approval`.
        """
        ...

    def __call__(self, record: CallRecord, /) -> None:
        """Receive the record of the call."""
        ...


OnCall = Callable[[CallRecord], None] | CallObserver


class RecordedCall:
    """A call, as a context manager that records it. A class rather than a generator, for speed."""

    attempts = 0
    status: int | None = None
    bytes_sent = 0
    bytes_received = 0
    _around: AbstractContextManager[object] | None = None

    def __init__(self, name: str, deadline: Deadline, on_call: OnCall | None) -> None:
        self._name = name
        self.deadline = deadline
        self._on_call = on_call
        self._began = time.perf_counter()

    def __enter__(self) -> None:
        around = getattr(self._on_call, "around", None)
        if around is not None:
            notify("on_call.around", self._enter, around, _LOGGER)

    def _enter(self, around: Callable[[str], AbstractContextManager[object]]) -> None:
        entered = around(self._name)
        entered.__enter__()
        self._around = entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._tell(error)
        finally:
            around, self._around = self._around, None
            if around is not None:
                notify("on_call.around", lambda context: context.__exit__(None, None, None), around, _LOGGER)

    def _tell(self, error: BaseException | None) -> None:
        # The caller gets the error; a WARNING would also go to stderr if logging is not configured.
        level = logging.DEBUG if error is None else logging.INFO
        is_logged = _LOGGER.is_enabled_for(level)
        if self._on_call is None and not is_logged:
            return
        record = CallRecord(
            operation=self._name,
            attempts=self.attempts,
            status=error.status if isinstance(error, APIError) else self.status,
            error=None if error is None else type(error).__name__,
            seconds=time.perf_counter() - self._began,
            seconds_left=self.deadline.remaining(),
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            ended_at=time.time(),
        )
        if is_logged:
            _log(level, record, error)
        if self._on_call is not None:
            notify("on_call", self._on_call, record, _LOGGER)


def _log(level: int, record: CallRecord, error: BaseException | None) -> None:
    fields = {f"optimove_{name}": value for name, value in asdict(record).items() if name != "ended_at"}
    # Only our own errors are known to quote neither secrets nor personal data, and not all of them are short.
    cause = f" ({type(error).__name__})" if isinstance(error, OptimoveError) else ""
    _LOGGER.log(
        level,
        "%s %s status=%s attempts=%d seconds=%.3f left=%.3f sent=%d received=%d%s",
        record.operation,
        "ok" if error is None else "failed",
        record.status,
        record.attempts,
        record.seconds,
        record.seconds_left,
        record.bytes_sent,
        record.bytes_received,
        cause,
        extra=fields,
    )
