"""The root command: its subcommands and exit statuses."""

from __future__ import annotations

import os
from typing import Any, Final, final

import click

from .. import __version__
from ..errors import OptimoveError
from ..tracebacks import sensitive_variables
from .completion import completion
from .doctor.command import doctor
from .init import init
from .rehearse import campaign, demo, simulate, trigger
from .review import review
from .schema import schema
from .signals import Interrupted
from .signature import sign_command, verify_command
from .tenant import listeners, settings, webhooks

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_INTERRUPTED_STATUS: Final = 130


@final
class _Refusal(click.ClickException):
    """An expected error: one line, no traceback."""

    exit_code = 2


_WHOLE: Final = 1_000
"""Characters of a summary in the list of commands, so that click does not cut it."""


@final
class _Program(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their whole first sentences."""
        rows = [(name, self.commands[name].get_short_help_str(_WHOLE)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    @sensitive_variables  # the commands' own, and the environment's
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OptimoveError as error:
            raise _Refusal(" ".join(str(error).split())) from error
        except Interrupted as interrupted:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(interrupted.exit_status) from None
        except (KeyboardInterrupt, click.Abort):
            # click's own status for this is 1, which here means that a check failed.
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(_INTERRUPTED_STATUS) from None


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nStart with:\n  optimove-ce demo",
)
@click.version_option(__version__, prog_name="optimove-ce", message="%(prog)s %(version)s")
def program() -> None:
    """Rehearse Optimove Conditional Execution without Optimove, and manage what is registered there.

    Exit status: 0 done, 1 a check failed, 2 a usage or configuration error.
    """
    _keep_proxies_out_of_loopback()


def _keep_proxies_out_of_loopback() -> None:
    """Reach loopback without the proxy of the environment; the sample service inherits this."""
    listed = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    hosts = [host for host in (part.strip() for part in listed.split(",")) if host]
    value = ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = value


program.add_command(demo)
program.add_command(simulate)
program.add_command(trigger)
program.add_command(campaign)
program.add_command(sign_command)
program.add_command(verify_command)
program.add_command(webhooks)
program.add_command(listeners)
program.add_command(settings)
program.add_command(review)
program.add_command(init)
program.add_command(doctor)
program.add_command(schema)
program.add_command(completion)
