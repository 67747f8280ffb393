"""The way to a server: its name, a connection, TLS."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from optimove_conditional_execution.cli.doctor.check import Check, not_checked
from optimove_conditional_execution.cli.doctor.probe import TLS_CAUSES, Answer, Cause, Silence
from optimove_conditional_execution.cli.doctor.texts import is_address, is_loopback

_NAME_CAUSES: Final[frozenset[Cause]] = frozenset({"unknown-name", "look-up-failed"})

_CA_BUNDLE: Final = (
    "If a proxy of your company inspects TLS, or the server's authority is your own, set SSL_CERT_FILE to a PEM file "
    "with that authority, or pass http_client=httpx.Client(verify=ssl.create_default_context(cafile=...))."
)


def connection_checks(url: str, result: Answer | Silence, *, proxy: str | None, seconds: float) -> list[Check]:
    """Return the checks of the name, the connection and TLS, as far as one request shows them.

    Args:
        url: The base URL.
        result: What became of the request.
        proxy: The proxy that it went through, or None.
        seconds: How long it might take.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    cause = result.cause if isinstance(result, Silence) else None
    if proxy is not None:
        name = not_checked("name", f"The proxy {proxy} looks {host} up.", "Nothing to do, if the connection is ok.")
    elif cause in _NAME_CAUSES:
        name = Check("name", "problem", *trouble(url, result, proxy=proxy, seconds=seconds))
    else:
        name = Check("name", "ok", f"{host} is an address." if is_address(host) else f"{host} has an address.")
    return [
        name,
        _connection(url, result, proxy=proxy, seconds=seconds),
        _tls(url, result, proxy=proxy, seconds=seconds),
    ]


def _connection(url: str, result: Answer | Silence, *, proxy: str | None, seconds: float) -> Check:
    if isinstance(result, Silence):
        if result.cause in _NAME_CAUSES:
            return not_checked("connection", "The name has no address.")
        if result.cause not in TLS_CAUSES:
            return Check("connection", "problem", *trouble(url, result, proxy=proxy, seconds=seconds))
    through = "" if proxy is None else f" through the proxy {proxy}"
    return Check("connection", "ok", f"{_origin(url)} can be reached{through}.")


def _tls(url: str, result: Answer | Silence, *, proxy: str | None, seconds: float) -> Check:
    if urlsplit(url).scheme == "http":
        if is_loopback(urlsplit(url).hostname or ""):
            return Check("tls", "ok", "Not needed on loopback.")
        return not_checked("tls", "The URL is plain http.", "Use https: see url.")
    if isinstance(result, Answer) or result.cause == "no-answer":
        return Check("tls", "ok", "The server's certificate is valid, and of this host.")
    if result.cause in TLS_CAUSES:
        return Check("tls", "problem", *trouble(url, result, proxy=proxy, seconds=seconds))
    return not_checked("tls", "There is no connection.")


def trouble(
    url: str, result: Answer | Silence, *, proxy: str | None, seconds: float, is_own: bool = False
) -> tuple[str, str]:
    """Return what a silence means, and what helps.

    Args:
        url: What was asked.
        result: The silence.
        proxy: The proxy of the request, or None.
        seconds: How long the request might take.
        is_own: Whether the server is the engineer's own, and not Optimove's.
    """
    if isinstance(result, Answer):
        raise TypeError("An answer is no trouble of the connection.")
    where = _origin(url)
    said = f" ({result.detail.rstrip('.')})" if result.detail else ""
    spell = "Check the spelling of the URL" if is_own else "Check the spelling of OPTIMOVE_BASE_URL"
    firewall = (
        "Start your service, and check its port and the firewall."
        if is_own
        else "Check the URL, and whether a firewall of yours lets this machine out. If only a proxy may, set "
        "HTTPS_PROXY."
    )
    renew = "Renew it" if is_own else "Ask Optimove support, if it lasts"
    texts: dict[Cause, tuple[str, str]] = {
        "unknown-name": (f"Nobody knows the host of {where}{said}.", f"{spell}, and this machine's DNS."),
        "look-up-failed": (
            f"The name of {where} could not be looked up{said}.",
            "This machine's DNS server does not answer: check the network, or run this again.",
        ),
        "refused": (f"{where} refuses connections.", firewall),
        "unreachable": (f"There is no route to {where}{said}.", firewall),
        "no-connection": (f"{where} takes no connection within {seconds:g} s.", firewall),
        "proxy": (
            f"The proxy {proxy or ''} does not reach {where}{said}.".replace("  ", " "),
            "Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or list the host in NO_PROXY if no proxy is needed.",
        ),
        "unknown-issuer": (
            f"The certificate of {where} is of an authority that this machine does not know{said}.",
            "Serve the whole chain of a public authority: Optimove must trust it. A CA of your own will not do."
            if is_own
            else _CA_BUNDLE,
        ),
        "expired": (
            f"The certificate of {where} has expired{said}.",
            f"Check this machine's clock first. {renew}.",
        ),
        "not-yet-valid": (
            f"The certificate of {where} is not valid yet{said}.",
            f"Check this machine's clock first: it is probably slow. {renew}.",
        ),
        "other-host": (
            f"The certificate of {where} is of another host{said}.",
            "Serve a certificate with this host's name."
            if is_own
            else f"{spell}: your tenant's server is https://apiX.optimove.net. Something in between may answer, too.",
        ),
        "bad-certificate": (
            f"The certificate of {where} is not accepted{said}.",
            "Serve a certificate of a public authority." if is_own else _CA_BUNDLE,
        ),
        "not-tls": (f"{where} does not speak TLS{said}.", "Check scheme and port: plain http was answered to https."),
        "no-tls": (
            f"{where} and this machine agree on no TLS{said}.",
            "Check the port, and what stands in between; a server that asks for a client certificate is one cause.",
        ),
        "no-answer": (
            f"{where} took the request, but did not answer within {seconds:g} s.",
            "See what your service waits for; --timeout gives it longer."
            if is_own
            else "Run this again, or with a longer --timeout. Ask Optimove support, if it lasts.",
        ),
        "broken-off": (
            f"{where} ended the connection without an answer.",
            "Check scheme and port: a server that expects TLS does so to plain http. See your service's log."
            if is_own
            else "Check scheme and port: a server that expects TLS does so to plain http. A firewall may do it, too.",
        ),
    }
    return texts[result.cause]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
