"""`optimove-ce doctor`: what is wrong before going live, found with reading calls alone.

Each check is a function that returns a `Check`. Those of settings look at the environment, those of the tenant at what
`probe.ask` brought back; `examination.py` asks, and puts them in order.
"""
