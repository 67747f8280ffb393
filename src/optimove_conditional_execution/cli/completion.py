"""`optimove-ce completion`: the script that lets a shell complete the command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="\b\nInstall it once, and open a new shell:\n"
    "  bash: optimove-ce completion bash > ~/.optimove-ce-complete.bash\n"
    "        echo '. ~/.optimove-ce-complete.bash' >> ~/.bashrc\n"
    "  zsh:  optimove-ce completion zsh > ~/.optimove-ce-complete.zsh\n"
    "        echo '. ~/.optimove-ce-complete.zsh' >> ~/.zshrc\n"
    "  fish: optimove-ce completion fish > ~/.config/fish/completions/optimove-ce.fish"
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in SHELL: bash, zsh or fish."""
    root = ctx.find_root()
    chosen = get_completion_class(shell)
    assert chosen is not None  # noqa: S101 - click has all three
    name = root.info_name or "optimove-ce"
    click.echo(chosen(root.command, {}, name, f"_{name}_COMPLETE".replace("-", "_").upper()).source())
