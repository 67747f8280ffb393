"""What error trackers record of an exception: the `repr` of every local variable of every frame, causes included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TESTS = str(Path(__file__).parent)
DEPTH = 3


def recorded(error: BaseException, *, own_frames: bool = False) -> list[str]:
    """Return what a tracker sends with an exception, a line for each value.

    Args:
        error: What was raised.
        own_frames: Whether the frames of these tests count, which stand for the integrator's own code.
    """
    return list(_recorded(error, set(), own_frames))


def _recorded(error: BaseException, seen: set[int], own_frames: bool) -> Iterator[str]:
    if id(error) in seen:
        return
    seen.add(id(error))
    kind = type(error).__name__
    yield f"{kind}: {error} {error!r} {getattr(error, '__notes__', '')}"
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if own_frames or not frame.f_code.co_filename.startswith(TESTS):
            where = f"{kind}, {frame.f_code.co_filename.rpartition('/')[2]}, {frame.f_code.co_name}"
            for name, value in dict(frame.f_locals).items():
                for text in _texts(value, DEPTH):
                    yield f"{where}, {name}: {text}"
        traceback = traceback.tb_next
    others = (error.__cause__, error.__context__, *(error.exceptions if isinstance(error, BaseExceptionGroup) else ()))
    for other in others:
        if other is not None:
            yield from _recorded(other, seen, own_frames)


def _texts(value: Any, depth: int) -> Iterator[str]:
    try:
        yield repr(value)
    except Exception as broken:  # noqa: BLE001 - a tracker goes on, too
        yield f"<{type(broken).__name__}>"
    if depth == 0:
        return
    if isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inner = list(value)
    else:
        return
    for each in inner:
        yield from _texts(each, depth - 1)
