"""What is registered at Optimove, from a shell: over real HTTP against the stand-in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.cli.tenant import shown_url, with_token
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.conftest import Run
from tests.docs.pages import DOCS

GROUPS = ("webhooks", "listeners", "settings")
Type = Callable[..., Result]


@pytest.fixture
def typed(fake_optimove: FakeOptimove, optimove_url: str, monkeypatch: pytest.MonkeyPatch) -> Type:
    """Run a command line against the stand-in; keywords are further environment variables."""
    for name in ("OPTIMOVE_WEBHOOK_SECRET", "OPTIMOVE_LISTENER_TOKEN", "OPTIMOVE_TIMEZONE"):
        monkeypatch.delenv(name, raising=False)

    def run(line: str, **variables: str) -> Result:
        environment = {"OPTIMOVE_API_KEY": fake_optimove.api_key, "OPTIMOVE_BASE_URL": optimove_url, **variables}
        return CliRunner().invoke(program, line.split(), env=environment)

    return run


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# ---- webhooks


def test_webhooks_from_creating_to_deleting(typed: Type, fake_optimove: FakeOptimove) -> None:
    url = "https://gate.example.com/optimove?key=private"
    assert typed("webhooks list").stdout == "No webhook is registered.\n"
    for _ in range(2):
        assert told(typed(f"webhooks create {url} --json")) == {"id": "webhook1", "registered": True}
    assert typed("webhooks list").stdout == "webhook1  https://gate.example.com/optimove?...\n"
    assert told(typed("webhooks list --full --json")) == [{"id": "webhook1", "url": url}]
    assert typed("webhooks show webhook1").stdout == "webhook1  https://gate.example.com/optimove?...\n"
    assert told(typed("webhooks show webhook1 --json --full"))["url"] == url
    assert typed("webhooks delete webhook1").stdout == "webhook1 is deleted.\n"
    assert fake_optimove.webhooks == {}


@pytest.mark.parametrize("command", ["show", "delete"])
def test_a_webhook_that_is_not_there_is_status_1(command: str, typed: Type) -> None:
    done = typed(f"webhooks {command} webhook9")
    assert (done.exit_code, done.stdout) == (1, "There is no webhook of that id.\n")
    done = typed(f"webhooks {command} webhook9 --json")
    assert (done.exit_code, json.loads(done.stdout)) == (1, {"found": False})


# ---- listeners


def test_listeners_from_registering_to_unregistering(typed: Type, fake_optimove: FakeOptimove) -> None:
    assert typed("listeners list").stdout == "No listener is registered.\n"
    done = typed("listeners register https://gate.example.com/secret-path", OPTIMOVE_LISTENER_TOKEN="the/token")
    assert done.stdout == "The listener for event type 5 is registered.\n"
    url = "https://gate.example.com/secret-path?token=the%2Ftoken"
    assert fake_optimove.listeners == {(5, None): url}
    told(typed("listeners register https://gate.example.com/sent --event-type 13 --channel 504 --json"))
    assert typed("listeners list").stdout == (
        "5  all channels  https://gate.example.com/...\n13  504  https://gate.example.com/...\n"
    )
    assert told(typed("listeners list --full --json"))[0] == {
        "event_type_id": 5,
        "channel_id": None,
        "listener_url": url,
    }
    assert told(typed("listeners unregister --event-type 13 --channel 504 --json"))["unregistered"] is True
    assert typed("listeners unregister").stdout == "The listener for event type 5 is unregistered.\n"
    assert fake_optimove.listeners == {}


@pytest.mark.parametrize(
    "line",
    [
        "listeners register gate.example.com",
        "listeners register https://gate.example.com --event-type 5 --channel 504",
        "listeners register https://gate.example.com --event-type x",
        "listeners unregister --channel -1",
        "webhooks create /optimove",
        "settings set",
        "settings set --timeout-ms 0",
        "webhooks",
    ],
)
def test_what_makes_no_sense_is_status_2(line: str, typed: Type, fake_optimove: FakeOptimove) -> None:
    assert typed(line).exit_code == 2
    assert fake_optimove.calls == []


def test_a_blank_token_is_refused(typed: Type, fake_optimove: FakeOptimove) -> None:
    done = typed("listeners register https://gate.example.com", OPTIMOVE_LISTENER_TOKEN=" ")
    assert done.exit_code == 2
    assert "OPTIMOVE_LISTENER_TOKEN" in done.stderr
    assert fake_optimove.calls == []


def test_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTIMOVE_LISTENER_TOKEN", raising=False)
    assert with_token("https://a.test/x") == "https://a.test/x"
    monkeypatch.setenv("OPTIMOVE_LISTENER_TOKEN", "t&=ü")
    assert with_token("https://a.test/x?a=1") == "https://a.test/x?a=1&token=t%26%3D%C3%BC"
    assert with_token("https://a.test/x?token=mine") == "https://a.test/x?token=mine"
    monkeypatch.setenv("OPTIMOVE_LISTENER_TOKEN", "")
    with pytest.raises(ConfigurationError):
        with_token("https://a.test/x")


def test_urls_on_a_screen() -> None:
    assert shown_url("https%3A%2F%2Fa.test%2Ft%3Ftoken%3Dx", full=False) == "https://a.test/..."
    assert shown_url("https://user:pass@a.test/t", full=False) == "https://a.test/..."
    assert shown_url("https://[", full=False) == ".../..."
    assert shown_url("https://a.test/t?token=x", full=True) == "https://a.test/t?token=x"


# ---- settings


def test_settings_never_show_the_secret(typed: Type, fake_optimove: FakeOptimove) -> None:
    assert typed("settings set --timeout-ms 1500").stdout == "Answers may take 1500 ms. No secret was sent.\n"
    assert (fake_optimove.timeout_ms, fake_optimove.secret) == (1500, "fake-secret")
    done = typed("settings set --timeout-ms 800 --new-secret --json", OPTIMOVE_WEBHOOK_SECRET="the-new-one")
    assert told(done) == {"timeout_ms": 800, "secret_sent": True}
    assert (fake_optimove.timeout_ms, fake_optimove.secret) == (800, "the-new-one")
    assert "the-new-one" not in done.output


def test_no_secret_to_set_is_status_2(typed: Type, fake_optimove: FakeOptimove) -> None:
    done = typed("settings set --timeout-ms 800 --new-secret")
    assert done.exit_code == 2
    assert "OPTIMOVE_WEBHOOK_SECRET" in done.stderr
    assert fake_optimove.calls == []


# ---- what they share


@pytest.mark.parametrize("line", ["webhooks list", "listeners list", "settings set --timeout-ms 5000"])
def test_a_wrong_key_is_one_line_without_the_key(line: str, typed: Type) -> None:
    done = typed(line, OPTIMOVE_API_KEY="wrong-key-1234")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "401" in done.stderr
    assert "wrong-key-1234" not in done.output


def test_a_missing_setting_is_named(optimove_ce: Run) -> None:
    done = optimove_ce("listeners", "list", variables={"OPTIMOVE_BASE_URL": "http://127.0.0.1:9"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "OPTIMOVE_API_KEY" in done.stderr
    done = optimove_ce("webhooks", "list", variables={"OPTIMOVE_API_KEY": "key"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "OPTIMOVE_BASE_URL" in done.stderr


def commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name in GROUPS:
        group = program.get_command(click.Context(program), name)
        assert isinstance(group, click.Group)
        found |= {f"{name} {below}": command for below, command in group.commands.items()}
    return found


@pytest.mark.parametrize("name", [*GROUPS, *commands()])
def test_help_has_an_example(name: str) -> None:
    done = CliRunner().invoke(program, [*name.split(), "--help"])
    assert done.exit_code == 0
    assert "optimove-ce " + name in done.output.replace("\n", " ") or name in GROUPS
    assert "optimove-ce " in done.output.partition("Example")[2]


def test_no_command_takes_a_key_or_a_secret_as_an_option() -> None:
    for command in commands().values():
        for parameter in command.params:
            if {"--new-secret"} & set(parameter.opts):
                assert isinstance(parameter, click.Option)
                assert parameter.is_flag
            else:
                assert not re.search("key|secret|token", " ".join(parameter.opts))


def test_the_reference_names_every_option_of_the_subcommands() -> None:
    text = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    rows = re.findall(r"^\| `((?!review|decisions)\w+ \w+) ?([^`]*)` \| (.*) \|$", text, re.MULTILINE)
    named: dict[str, set[str]] = {}
    for name, typed, _ in rows:
        named[name] = set(re.findall(r"--[a-z-]+|[A-Z]+", re.sub(r"(--[a-z-]+) [A-Z]+", r"\1", typed)))
    real = {
        name: {parameter.human_readable_name if isinstance(parameter, click.Argument) else max(parameter.opts, key=len)
               for parameter in command.params}
        for name, command in commands().items()
    }  # fmt: skip
    assert named == {name: {each.replace("webhook_id", "ID") for each in options} for name, options in real.items()}
