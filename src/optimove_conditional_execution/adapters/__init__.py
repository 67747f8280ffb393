"""Adapters, one module per server interface: each builds a `Request`, reading at most `max_body` bytes."""
