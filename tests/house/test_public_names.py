"""The names that users type: complete, documented, alike in both colours."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import optimove_conditional_execution as package
from optimove_conditional_execution import adapters, models, operations, receivers, stores, testing
from optimove_conditional_execution.adapters import asgi, aws_lambda, wsgi

CONTRACT = {
    "sign", "verify", "UNSIGNED", "Request", "Response", "Deadline",
    "WebhookNotification", "Approval", "Webhook", "TenantSettings",
    "ListenerEvent", "CampaignReadyEvent", "EventListener", "CampaignCustomer", "CustomerPromotionStatus",
    "CampaignDetails",
    "OptimoveClient", "AsyncOptimoveClient", "RetryPolicy", "RateLimit", "Endpoints", "Operation",
    "WebhookHandler", "AsyncWebhookHandler", "Decision", "WebhookReceiver", "AsyncWebhookReceiver", "Outcome",
    "ClaimStore", "Journal", "CampaignReviewer", "AsyncCampaignReviewer", "CampaignReview", "AsyncCampaignReview",
    "ReviewReport", "Progress", "per_customer", "ListenerReceiver", "AsyncListenerReceiver",
    "OptimoveError", "ConfigurationError", "APIError", "AuthenticationError", "NotFoundError", "RateLimitError",
    "ServerError", "UnexpectedResponseError", "TransportError", "DeadlineExceeded", "SignatureError", "PayloadError",
}  # fmt: skip


def test_the_contract_is_exported() -> None:
    assert set(package.__all__) >= CONTRACT
    assert {"MemoryClaims", "SqliteClaims", "ClaimStore", "MemoryJournal", "SqliteJournal", "Journal"} <= set(
        stores.__all__
    )
    assert {"FakeOptimove", "notification", "signed_request"} <= set(testing.__all__)
    assert callable(asgi.ASGIApp)
    assert callable(wsgi.WSGIApp)
    assert callable(aws_lambda.lambda_handler)
    assert adapters.__doc__


def seen_by_type_checkers(lazy: ModuleType) -> list[str]:
    source = ast.parse(Path(str(lazy.__file__)).read_text())
    typed = next(node for node in source.body if isinstance(node, ast.If))
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names if not alias.asname]  # with one it is a submodule


@pytest.mark.parametrize("lazy", [package, models, operations, receivers, stores, testing])
def test_type_checkers_see_what_there_is_at_run_time(lazy: ModuleType) -> None:
    modules: dict[str, str] = getattr(lazy, "_MODULES")  # noqa: B009 - not for type checkers
    assert sorted(seen_by_type_checkers(lazy)) == sorted(modules)
    assert set(lazy.__all__) - {"__version__"} == set(modules)
    assert all(getattr(lazy, name) is not None for name in modules)


def test_all_names_every_public_name_and_no_other() -> None:
    assert set(package.__all__) == {*seen_by_type_checkers(package), "__version__"}
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(package, "Nothing")  # noqa: B009 - type checkers refuse it
    assert list(package.__all__) == sorted(package.__all__, key=_as_ruff_sorts)


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


DOCUMENTED = sorted(
    name
    for page in (Path(__file__).parents[2] / "docs" / "reference").glob("*.md")
    for name in re.findall(r"^::: (optimove_conditional_execution\.\S+)", page.read_text(), re.MULTILINE)
)


def test_the_submodules_that_the_reference_names_need_no_import() -> None:
    named = {name.split(".")[1] for name in DOCUMENTED} - set(package.__all__)
    source = Path(str(package.__file__)).read_text()
    assert sorted(re.findall(r"from \. import (\w+) as \1$", source, re.MULTILINE)) == sorted(named), (
        "for type checkers"
    )
    code = f"import optimove_conditional_execution as o; print([getattr(o, name).__name__ for name in {sorted(named)}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(run.stdout) == [f"{package.__name__}.{name}" for name in sorted(named)]


@pytest.mark.parametrize("name", sorted({*DOCUMENTED, *(f"{package.__name__}.{name}" for name in package.__all__)}))
def test_type_hints_can_be_evaluated(name: str) -> None:
    value = pkgutil.resolve_name(name)
    found: list[Any] = [value]
    if inspect.isclass(value):
        members = [
            getattr(member, "__func__", getattr(member, "func", member))
            for _, member in inspect.getmembers_static(value)
        ]
        found += [member.fget if isinstance(member, property) else member for member in members]
    ours = [each for each in found if inspect.isroutine(each) or inspect.isclass(each)]
    ours = [each for each in ours if str(getattr(each, "__module__", "")).startswith(package.__name__)]
    for each in ours:
        if not each.__name__.startswith("_") or each.__name__ in ("__init__", "__call__"):
            typing.get_type_hints(each)


@pytest.mark.parametrize("name", sorted(set(package.__all__) - {"__version__", "UNSIGNED"}))
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(package, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        for member_name, member in vars(value).items():
            if not member_name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{member_name}"


def public_methods(kind: type) -> dict[str, str]:
    return {
        name: re.sub(r"AsyncGenerator\[(.*), None\]", r"Generator[\1, None, None]", str(inspect.signature(member)))
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


PAIRS = [
    (package.OptimoveClient, package.AsyncOptimoveClient, {"close": "aclose"}),
    (package.WebhookReceiver, package.AsyncWebhookReceiver, {}),
    (package.ListenerReceiver, package.AsyncListenerReceiver, {}),
    (package.CampaignReview, package.AsyncCampaignReview, {"close": "aclose"}),
    (package.Health, package.AsyncHealth, {}),
]


GO_ON = {package.AsyncWebhookReceiver, package.AsyncListenerReceiver}
"""Their work goes on when a request is cancelled, which a thread cannot be."""


@pytest.mark.parametrize(("sync", "twin", "renamed"), PAIRS)
def test_sync_and_async_are_twins(sync: type, twin: type, renamed: dict[str, str]) -> None:
    mine = {renamed.get(name, name): signature for name, signature in public_methods(sync).items()}
    theirs = public_methods(twin)
    if twin in GO_ON:
        assert theirs.pop("drain") == "(self, *, within: 'float' = 10.0) -> 'bool'"
    assert mine == theirs
    assert list(inspect.signature(sync).parameters) == list(inspect.signature(twin).parameters)
    defaults = {name: p.default for name, p in inspect.signature(sync).parameters.items()}
    assert defaults == {name: p.default for name, p in inspect.signature(twin).parameters.items()}


OF_ONE_REQUEST = {
    "get_processed_campaign_customers": ["campaign_id", "customer_attributes", "top", "skip"],
    "get_customer_execution_details_by_campaign": [
        "campaign_id",
        "channel_id",
        "customer_attributes",
        "top",
        "skip",
    ],
    "update_customer_promotion_status": ["campaign_id", "statuses", "timestamp"],
}
"""What an operation is told where the client's method makes several requests."""


def test_every_call_has_an_operation_of_its_name_and_arguments() -> None:
    for name in public_methods(package.OptimoveClient):
        if name in {"send", "close", "ensure_webhook", "ensure_event_listener"} or name.endswith("_in_blocks"):
            continue
        operation = inspect.signature(getattr(operations, name))
        wanted = [
            parameter
            for parameter in inspect.signature(getattr(package.OptimoveClient, name)).parameters
            if parameter not in {"self", "deadline", "counter"}
        ]
        assert list(operation.parameters) == OF_ONE_REQUEST.get(name, wanted)
        assert hasattr(operations.ENDPOINTS, name)


def test_the_signatures_of_the_contract() -> None:
    client = inspect.signature(package.OptimoveClient).parameters
    assert list(client) == [
        "api_key", "base_url", "timezone", "timeout", "retry", "rate_limit", "approval_rate_limit", "endpoints",
        "http_client", "engine", "max_connections", "on_call",
    ]  # fmt: skip
    assert client["timeout"].default == 30.0
    assert client["rate_limit"].default == package.RateLimit(50, per=10.0)
    assert client["approval_rate_limit"].default is None
    assert client["retry"].default == package.RetryPolicy(attempts=4, attempt_timeout=10.0)
    receiver = inspect.signature(package.WebhookReceiver).parameters
    assert {name: receiver[name].default for name in list(receiver)[3:]} == {
        "on_failure": "abstain",
        "claims": None,
        "lease": None,
        "on_store_failure": "refuse",
        "decision_log": None,
        "on_log_failure": "refuse",
        "reserve": None,
        "max_concurrency": 100,
        "max_body": 262_144,
        "on_outcome": None,
        "around": None,
        "switch": None,
        "shadow": None,
        "observe": False,
    }
    assert receiver["secrets"].default is inspect.Parameter.empty
    for keyword_only in ("client", "secrets", "on_failure"):
        assert receiver[keyword_only].kind is inspect.Parameter.KEYWORD_ONLY
