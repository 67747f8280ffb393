"""List, register and remove webhooks, and set how Optimove calls them.

Run it:    python manage_webhooks.py list
           python manage_webhooks.py ensure https://your.host/optimove
           python manage_webhooks.py delete WEBHOOK_ID
           python manage_webhooks.py settings --timeout-ms 5000
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL (such as https://api5.optimove.net), and for the command `settings`
           OPTIMOVE_WEBHOOK_SECRET: the new secret is read from there, so that it stays out of your shell's history.

python manage_webhooks.py --fake ensure https://your.host/optimove
"""

from __future__ import annotations

import argparse
import os
import sys

from optimove_conditional_execution import OptimoveClient, OptimoveError
from optimove_conditional_execution.testing import FakeOptimove


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says; an error of Optimove's ends it with a message and status 1."""
    parser = argparse.ArgumentParser(description="Manage the webhooks of an Optimove tenant.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the registered webhooks")
    commands.add_parser("ensure", help="register a URL, unless it is registered").add_argument("url")
    commands.add_parser("delete", help="stop the notifications to a webhook").add_argument("webhook_id")
    settings = commands.add_parser("settings", help="set timeout and secret, for all webhooks of the tenant")
    settings.add_argument("--timeout-ms", type=int, default=5_000, help="how long Optimove waits for an answer")
    parser.add_argument("--fake", action="store_true", help="use a simulator that lives as long as this command")
    options = parser.parse_args(arguments)
    try:
        with FakeOptimove().client() if options.fake else OptimoveClient() as client:
            print(run(client, options))
    except OptimoveError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def run(client: OptimoveClient, options: argparse.Namespace) -> str:
    """Send the call of one command; return what to print."""
    if options.command == "list":
        return "\n".join(f"{webhook.id}  {webhook.url}" for webhook in client.get_webhooks()) or "no webhooks"
    if options.command == "ensure":
        return client.ensure_webhook(options.url).id
    if options.command == "delete":
        client.delete_webhook(options.webhook_id)
        return f"{options.webhook_id} is deleted"
    secret = os.environ.get("OPTIMOVE_WEBHOOK_SECRET")
    if not secret:
        sys.exit("OPTIMOVE_WEBHOOK_SECRET is not set: what shall Optimove sign with?")
    settings = client.update_webhook_settings(timeout_ms=options.timeout_ms, secret=secret)
    return f"timeout {settings.timeout_ms} ms, and the new secret is set"


if __name__ == "__main__":
    main()
