"""The tables in PostgreSQL. A file of its own, so that `optimove-ce schema` prints them without a driver."""

from __future__ import annotations

from typing import Final

CLAIMS_SCHEMA: Final = """\
CREATE TABLE IF NOT EXISTS optimove_claims (
    key bytea PRIMARY KEY,  -- SHA-256 of the question
    state text NOT NULL,
    owner text NOT NULL,
    lease timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    approval bytea
) WITH (fillfactor = 70);
"""
