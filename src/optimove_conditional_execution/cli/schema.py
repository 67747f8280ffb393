"""`optimove-ce schema`: the tables that the stores need in PostgreSQL."""

from __future__ import annotations

import click

from ..stores.postgres_schema import CLAIMS_SCHEMA, DECISIONS_SCHEMA, JOURNAL_SCHEMA


@click.command(epilog="\b\nExample:\n  optimove-ce schema | psql postgresql://owner@db.example.com/gate")
def schema() -> None:
    """Print the tables of PostgresClaims, PostgresJournal and PostgresDecisionLog, for a role that may make them.

    Where the gate's own role may create them, they are made at first use. Otherwise grant it SELECT, INSERT, UPDATE and
    DELETE on them. For a log that the gate itself cannot change, grant it no more than SELECT and INSERT on
    optimove_decision_log, and SELECT and UPDATE on optimove_decision_log_head.
    """
    click.echo(CLAIMS_SCHEMA + JOURNAL_SCHEMA + DECISIONS_SCHEMA, nl=False)
