"""`python -m optimove_conditional_execution.cli` is `optimove-ce`."""

from optimove_conditional_execution.cli import main

main()
