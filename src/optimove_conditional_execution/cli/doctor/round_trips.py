"""What round trips to Optimove leave of the time for an answer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

from optimove_conditional_execution.cli.doctor.check import Check, not_checked
from optimove_conditional_execution.flows.budget import Reserve

_MEANT_FOR: Final = "What is set in Optimove cannot be read: tell it with --timeout-ms."


def budget_check(seconds: Sequence[float], *, timeout_ms: int) -> Check:
    """Say what a receiver would keep back to deliver its answer, and what is left for the handler.

    Approvals cannot be tried without a notification, so other round trips stand for them; the first of them opens the
    connection, as the first approval after a quiet time does.

    Args:
        seconds: Round trips.
        timeout_ms: How long Optimove waits for an answer.
    """
    if not seconds:
        return not_checked("budget", "No round trip could be measured.")
    reserve = Reserve(clock=time.monotonic)
    for each in seconds:
        reserve.observe(each)
    budget = timeout_ms / 1000
    kept, wanted = _ms(reserve.for_budget(budget)), _ms(reserve.for_budget(math.inf))
    finding = (
        f"Round trips ({len(seconds)}) took {_ms(min(seconds))} to {_ms(max(seconds))} ms. Of {timeout_ms} ms a "
        f"receiver keeps {kept} ms to deliver its answer; {timeout_ms - kept} ms are left for your handler."
    )
    if 3 * wanted <= timeout_ms:
        return Check("budget", "ok", finding)
    return Check(
        "budget",
        "warning",
        f"{finding} Delivery would need {wanted} ms, more than a third: answers can come too late.",
        f"Run the service nearer to Optimove's server, or give answers longer: optimove-ce settings set --timeout-ms "
        f"{math.ceil(3 * wanted / 100) * 100}. {_MEANT_FOR}",
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
