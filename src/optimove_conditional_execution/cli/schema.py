"""`optimove-ce schema`: the tables that the stores need in PostgreSQL."""

from __future__ import annotations

import click

from ..stores.postgres_schema import CLAIMS_SCHEMA, JOURNAL_SCHEMA


@click.command(epilog="\b\nExample:\n  optimove-ce schema | psql postgresql://owner@db.example.com/gate")
def schema() -> None:
    """Print the tables that PostgresClaims and PostgresJournal need, as SQL, for a role that may create tables.

    Where the gate's own role may create them, they are made at first use. Otherwise grant it SELECT, INSERT, UPDATE and
    DELETE on them.
    """
    click.echo(CLAIMS_SCHEMA + JOURNAL_SCHEMA, nl=False)
