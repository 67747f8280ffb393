"""`optimove-ce switch`: what the kill switch's file says, and setting it."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import ConfigurationError
from ..flows.switch import SwitchMode
from ..switch import change_switch, read_switch


@click.command(epilog='\b\nExample:\n  optimove-ce switch /etc/gate/switch --deny --tag "Summer bonus"')
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--deny", "mode", flag_value="deny", help="Say no to everybody.")
@click.option("--abstain", "mode", flag_value="abstain", help="Say nothing about anybody, so nobody is approved.")
@click.option("--ask", "mode", flag_value="ask", help="Ask the handler or reviewer as usual.")
@click.option("--campaign", "campaigns", metavar="N", multiple=True, help="Only about this campaign; repeatable.")
@click.option("--tag", "tags", metavar="T", multiple=True, help="Only about the campaigns with this tag; repeatable.")
def switch(file: Path, mode: SwitchMode | None, campaigns: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """Stop approvals, of everything or of some campaigns, without a deployment.

    FILE is the one that receivers and reviews have as `switch=`; they see it within about a second. Without --deny,
    --abstain or --ask, print what it says. What is stopped for a campaign or a tag stays so until --ask names it.
    """
    try:
        if mode is not None:
            state = change_switch(file, mode, campaigns=campaigns, tags=tags)
        elif campaigns or tags:
            raise click.UsageError("--campaign and --tag need --deny, --abstain or --ask.")
        else:
            state = read_switch(file)
    except OSError as error:
        raise ConfigurationError(f"The file {file} cannot be used: {error.strerror}.") from error
    for line in state.lines():
        click.echo("".join(character if character.isprintable() else "?" for character in line))
