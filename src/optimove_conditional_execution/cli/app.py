"""The root command: its subcommands, each a module of this package, and exit statuses."""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any, Final

import click
from click.shell_completion import get_completion_class

from .. import __version__
from ..errors import OptimoveError
from ..tracebacks import sensitive_variables
from .signals import Interrupted

_COMMANDS: Final = {
    **{name: f"rehearse:{name}" for name in ("demo", "simulate", "trigger", "campaign")},
    **{name: f"tools:{name}_command" for name in ("sign", "verify")},
    **{name: f"tools:{name}" for name in ("switch", "schema", "init")},
    **{name: f"tenant:{name}" for name in ("webhooks", "listeners", "settings")},
    **{name: f"decisions:{name}" for name in ("decisions", "replay", "reconcile")},
    **{name: f"{name}:{name}" for name in ("doctor", "review")},
}
"""Module and name of each command; the module is imported when the command is asked for."""

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_INTERRUPTED_STATUS: Final = 130
_FULL: Final = (errno.ENOSPC, errno.EFBIG, errno.EIO)


class _Refusal(click.ClickException):
    """An expected error: one line, no traceback."""

    exit_code = 2


_WHOLE: Final = 1_000
"""Characters of a summary in the list of commands, so that click does not cut it."""


class _Program(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*_COMMANDS, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            module, _, name = _COMMANDS[cmd_name].partition(":")
            self.add_command(getattr(importlib.import_module(f".{module}", __package__), name))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their whole first sentences."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str(_WHOLE)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    @sensitive_variables  # the commands' own, and the environment's
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OptimoveError as error:
            raise _Refusal(" ".join(str(error).split())) from error
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise _Refusal(f"What is printed or written is not complete: {error.strerror}.") from error
        except (Interrupted, KeyboardInterrupt, click.Abort) as ended:
            # click's own status for this is 1, which here means that a check failed.
            click.echo("Interrupted.", err=True)
            status = ended.exit_status if isinstance(ended, Interrupted) else _INTERRUPTED_STATUS
            raise click.exceptions.Exit(status) from None


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
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
    hosts = dict.fromkeys([*filter(None, map(str.strip, listed.split(","))), *_LOOPBACK])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)


@program.command(
    epilog="\b\nInstall it once, and open a new shell:\n"
    "  bash: optimove-ce completion bash > ~/.optimove-ce-complete.bash\n"
    "        echo '. ~/.optimove-ce-complete.bash' >> ~/.bashrc\n"
    "  zsh:  optimove-ce completion zsh > ~/.optimove-ce-complete.zsh\n"
    "        echo '. ~/.optimove-ce-complete.zsh' >> ~/.zshrc\n"
    "  fish: optimove-ce completion fish > ~/.config/fish/completions/optimove-ce.fish"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in SHELL: bash, zsh or fish."""
    root = ctx.find_root()
    chosen = get_completion_class(shell)
    assert chosen is not None  # noqa: S101 - click has all three
    name = root.info_name or "optimove-ce"
    click.echo(chosen(root.command, {}, name, f"_{name}_COMPLETE".replace("-", "_").upper()).source())
