"""`python -m optimove_conditional_execution.cli` is `optimove-ce`."""

from . import main

main()
