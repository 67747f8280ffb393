"""`optimove-ce doctor`: checks before going live, with read-only calls.

Each check is a function that returns a `Check`. Those in `environment.py` read the environment, those in
`connection.py`, `tenant.py` and `own_service.py` send requests with a `Probe`; `command.py` runs them in order.
"""
