"""What integrators can use instead of this SDK, each put before the same faults: `python -m benchmarks comparison`.

It needs the dependency groups `test` and `comparison`, and takes two to three minutes. It prints the tables of
`docs/explanation/comparison.md`. Every alternative is set up as its own documentation would have it.
"""
