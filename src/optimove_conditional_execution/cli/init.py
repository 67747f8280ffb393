"""`optimove-ce init`: a small project that runs against the simulator, and has a test."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from optimove_conditional_execution.cli.projects import PROJECTS, write


@click.command(epilog="\b\nExamples:\n  optimove-ce init fastapi\n  optimove-ce init flask gate --json")
@click.argument("kind", type=click.Choice(list(PROJECTS)))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--force", is_flag=True, help="Overwrite files that are there already; only those that it writes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(kind: str, directory: Path, force: bool, as_json: bool) -> None:
    """Write a small project into DIRECTORY, the current one by default: a gate, its service, and its tests.

    It runs against the simulator as it is, and its tests pass. Replace the function `player_status` with your register.
    A `script` needs no framework: Python's own web server serves it. Nothing is downloaded or installed.

    Exit status: 0 it is written, 2 files are there already, or could not be written.
    """
    project = PROJECTS[kind]
    files = project.files()
    write(files, directory, replace=force)
    commands = project.commands()
    if directory.resolve() != Path.cwd():
        commands[0] = f"cd {shlex.quote(str(directory))} && {commands[0]}"
    if as_json:
        click.echo(json.dumps({"kind": kind, "directory": str(directory), "files": list(files), "next": commands}))
        return
    for name in files:
        click.echo(f"wrote {click.format_filename(directory / name)}")
    click.echo("\nNext: set up, test, rehearse.\n")
    for command in commands:
        click.echo(f"  {click.format_filename(command)}")
