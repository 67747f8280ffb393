"""Finding coroutines that were never awaited, such as a condition without its `await`, which approves everybody."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Final

_NEVER_AWAITED: Final = re.compile(r"coroutine '(.*)' was never awaited")


@contextmanager
def assert_awaited() -> Iterator[None]:
    """Fail if a coroutine is dropped in the `with` block without having been awaited.

    `if is_excluded(customer):` without its `await` is always true: a coroutine is made, and dropped. Python tells that
    as a warning when the coroutine is collected, and by default once for each place. This asks for all of them, for the
    time of the block and in all threads, as `warnings.catch_warnings` does; other warnings pass. It is a tool for
    tests: a service must not change the warnings of its whole process for each notification.

    The fixture `fake_optimove` does this for the whole test.

    Raises:
        AssertionError: There was one; the message names them.
    """
    with warnings.catch_warnings(record=True) as seen:
        warnings.filterwarnings("always", message=_NEVER_AWAITED.pattern, category=RuntimeWarning)
        yield
    found: dict[str, None] = {}
    for each in seen:
        name = _NEVER_AWAITED.match(str(each.message))
        if name is None:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno, source=each.source)
        else:
            found[f"{name[1]} ({PurePath(each.filename).name}:{each.lineno})"] = None
    if found:
        raise AssertionError(
            f"Never awaited: {', '.join(found)}. A coroutine in a condition is always true: is an await missing?"
        )
