r"""A review whose rules cost processor time: a pool of processes decides, on all cores of the machine.

Run it:    pip install .     (in a clone)
           cd examples && python process_pool_review.py     (against the simulator)
Settings:  none; in production OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL and OPTIMOVE_TIMEZONE

python process_pool_review.py
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from optimove_conditional_execution import CampaignCustomer, CampaignReview, Deadline
from optimove_conditional_execution.testing import FakeOptimove

PROCESSES = 2


def approved(customer_ids: list[str]) -> list[str]:
    """Replace this with your rules. Another process runs it, so it is a function of a module, and takes plain data."""
    return [one for one in customer_ids if hashlib.pbkdf2_hmac("sha256", one.encode(), b"salt", 200)[0] >= 64]


def new_pool() -> Executor:
    """Return a pool. Not with fork, which copies the locks of threads that do not exist in the child."""
    return ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn"))


class InProcesses:
    """A reviewer that asks a pool; any `concurrent.futures.Executor` will do, such as that of Dask or of Ray."""

    def __init__(self) -> None:
        self.pool = new_pool()

    def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        """Return who is approved."""
        pool = self.pool
        try:
            asked = pool.submit(approved, [customer.customer_id for customer in customers])
            try:
                return asked.result(timeout=deadline.remaining())
            finally:
                asked.cancel()  # one that waits for a process; one that runs goes on, and its answer is ignored
        except BrokenProcessPool:  # a process was killed, as when memory was short; the pool takes nothing any more
            if pool is self.pool:
                self.pool = new_pool()
            raise  # this batch fails, and nobody in it is approved


def main() -> None:
    """Review a campaign of the simulator."""
    reviewer = InProcesses()
    optimove = FakeOptimove()  # in production: OptimoveClient()
    with optimove.client() as client:
        # As many batches wait for a process as are decided in one.
        review = CampaignReview(reviewer, client=client, batch_size=500, concurrency=2 * PROCESSES)
        report = review.run(optimove.add_campaign(2_000).event())
    reviewer.pool.shutdown()
    print(f"approved {report.approved}, denied {report.denied}, {'complete' if report.complete else report.warnings}")


if __name__ == "__main__":
    main()
