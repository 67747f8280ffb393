"""Pictures of how it went: latencies against a deadline, a review against clearance; on a terminal and as a page.

picture = Histogram.of(latencies_ms, deadline_ms=5_000)
show(picture)
write_page(report, title="A rehearsal", sections=[Section(title="...", ok=True, verdict="...", pictures=[picture])])
"""

from optimove_conditional_execution.cli.pictures.burn_up import BurnUp
from optimove_conditional_execution.cli.pictures.histogram import Histogram
from optimove_conditional_execution.cli.pictures.page import Section
from optimove_conditional_execution.cli.pictures.report_file import report_option, write_page
from optimove_conditional_execution.cli.pictures.samples import ProgressSamples, ReviewSamples
from optimove_conditional_execution.cli.pictures.text import show

__all__ = [
    "BurnUp",
    "Histogram",
    "ProgressSamples",
    "ReviewSamples",
    "Section",
    "report_option",
    "show",
    "write_page",
]
