"""Entries of a decision log as rows, each chained to the one before by a hash.

The hash of a row covers every column, and of the personal part a commitment: an HMAC of it under a random salt. When
the personal part and its salt are deleted, the commitment says nothing about it, and the hash still fits. A file of its
own, since it knows no database.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple, final

from ..errors import ConfigurationError, PayloadError
from ..flows.decision_log import Completion, DecisionRecord, RecordGroup, RecordGroups, Subject
from .payloads import PayloadCodec

GENESIS: Final = hashlib.sha256(b"optimove-ce decision log, version 1").digest()
SALT_BYTES: Final = 16

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

_PUBLIC: Final = (
    "flow",
    "kind",
    "verdict",
    "request_uid",
    "event_key",
    "subject.is_visitor",
    "subject.occurrence",
    "subject.action",
    "subject.channels",
    "subject.promotions",
    "redelivered",
    "error",
    "observed",
    "decided",
    "switch",
)
"""What the column `entry` holds of a record, besides `seconds`."""

_PUBLIC_NAMES: Final = (*(name.removeprefix("subject.") for name in _PUBLIC), "seconds", "identify_check")
_public_of: Final = attrgetter(*_PUBLIC)

_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(each ^ 0x36 for each in range(256))
_OUTER: Final = bytes(each ^ 0x5C for each in range(256))
"""Of HMAC-SHA256: the size of its key, and what that is combined with."""

_NULL: Final = "\x00"
"""Stands for NULL in what is hashed; JSON writes no control character as it is, so no column holds it."""


class Content(NamedTuple):
    """The columns of a row but for its number and hash; all texts are ASCII, as JSON escapes it."""

    type: str
    id: str | None
    completes: str | None
    at: str
    campaign: str | None
    low: int | None
    high: int | None
    entry: str
    commitment: bytes | None
    customer: str | None = None
    personal: str | None = None
    salt: bytes | None = None


_PERSONAL: Final = Content._fields.index("customer")


class Row(NamedTuple):
    """A row of the log."""

    number: int
    content: Content
    hash: bytes


@final
@dataclass(frozen=True, slots=True)
class ChainFault:
    """The first entry of a log that does not fit.

    Attributes:
        entry: Its number.
        problem: What is wrong, in words.
    """

    entry: int
    problem: str


def ascii_text(text: str) -> str:
    """Return a text as any database can store it, whatever its sender has put into it: a NUL, a lone surrogate."""
    return text if text.isascii() and text.isprintable() and "\\" not in text and '"' not in text else _escaped(text)


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def plain_text(stored: str) -> str:
    """Return the text that `ascii_text` was given."""
    text: str = json.loads(f'"{stored}"')
    return text


def _optional(text: str | None) -> str | None:
    return None if text is None else ascii_text(text)


def _json(value: object) -> str:
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(
            f"A record for the decision log cannot be written as JSON ({type(error).__name__})."
        ) from None


def _number(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise PayloadError("The number of a status must be a whole number from 0 to below 2**63.", path="number")
    return value


def stamp(moment: datetime, name: str) -> str:
    """Return a moment in UTC as text, which sorts chronologically.

    Raises:
        ConfigurationError: It has no zone.
    """
    if moment.tzinfo is None:
        raise ConfigurationError(f"{name} must have a zone, such as datetime.now(UTC).")
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return in_utc.isoformat(timespec="microseconds")


def contents_of(
    entries: Sequence[DecisionRecord | Completion],
    identify: Callable[[str], str] | None,
    payloads: PayloadCodec | None = None,
) -> list[Content]:
    """Return the contents of entries, each decision with a salt of its own; raises as `of_record` does."""
    salts = os.urandom(SALT_BYTES * len(entries))
    contents: list[Content] = []
    if type(entries) is RecordGroups:  # `isinstance` asks the ABC, which takes as long as a hash
        for group in entries.groups:
            own, salts = salts[: SALT_BYTES * len(group.customers)], salts[SALT_BYTES * len(group.customers) :]
            contents += _of_group(group, identify, own, payloads)
        return contents
    for index, each in enumerate(entries):
        if isinstance(each, DecisionRecord):
            salt = salts[SALT_BYTES * index : SALT_BYTES * (index + 1)]
            contents.append(of_record(each, identify, salt, payloads))
        else:
            contents.append(of_completion(each))
    return contents


def _of_group(
    group: RecordGroup,
    identify: Callable[[str], str] | None,
    salts: bytes,
    payloads: PayloadCodec | None,
) -> Iterator[Content]:
    """Yield what `of_record` returns for each record of a group; a million of them must not take long."""
    own = iter([salts[start : start + SALT_BYTES] for start in range(0, len(salts), SALT_BYTES)])
    if group.others is not None:
        for record, salt in zip(group, own, strict=True):
            yield of_record(record, identify, salt, payloads)
        return
    common, reasons, evidence = group.common, group.reasons, group.evidence
    at = _stamp_of(common.at)
    entries: dict[int, tuple[str | None, str]] = {}  # by the identity of a subject
    columns = zip(group.ids(), group.numbers(), group.customers, group.subjects, own, strict=False)
    for ident, number, name, subject, salt in columns:
        known = entries.get(id(subject))
        if known is None:
            public = _public_of(replace(common, subject=subject))
            entry = _entry_of(*public, dict(common.seconds) or None, getattr(identify, "check", None))
            known = entries[id(subject)] = _optional(subject.campaign), entry
        customer = ascii_text(name if identify is None else identify(name))
        personal = "{}"
        if name in reasons or name in evidence:
            personal = _json(_personal(reasons.get(name), evidence.get(name), None))
        yield Content(
            "decision",
            ascii_text(ident),
            None,
            at,
            known[0],
            None if number is None else _number(number),
            None,
            known[1],
            commitment(salt, customer, personal),
            customer,
            personal,
            salt,
        )


def _personal(
    reason: str | None, evidence: Mapping[str, Any] | None, additional_data: Mapping[str, Any] | None
) -> dict[str, object]:
    given: dict[str, object] = {} if reason is None else {"reason": reason}
    if evidence:
        given["evidence"] = dict(evidence)
    if additional_data:
        given["additional_data"] = dict(additional_data)
    return given


def of_record(
    record: DecisionRecord,
    identify: Callable[[str], str] | None,
    salt: bytes,
    payloads: PayloadCodec | None = None,
) -> Content:
    """Return the content of a decision's row.

    Args:
        record: The decision.
        identify: Replaces the customer's id, or None.
        salt: Random bytes.
        payloads: Writes its payload; None leaves that away.

    Raises:
        PayloadError: It cannot be written as JSON.
        ConfigurationError: Its time has no zone.
    """
    subject = record.subject
    check = None if subject.customer_id is None else getattr(identify, "check", None)
    public = (*_public_of(record), dict(record.seconds) or None, check)
    given = _personal(record.reason, record.evidence, record.additional_data)
    if payloads is not None:
        given |= payloads.encode(record.payload)
    customer = subject.customer_id
    if customer is not None:
        customer = ascii_text(customer if identify is None else identify(customer))
    is_personal = customer is not None or bool(given)
    personal = (_json(given) if given else "{}") if is_personal else None
    return Content(
        "decision",
        ascii_text(record.id),
        None,
        _stamp_of(record.at),
        _optional(subject.campaign),
        None if record.number is None else _number(record.number),
        None,
        _entry_of(*public),
        None if personal is None else commitment(salt, customer, personal),
        customer,
        personal,
        None if personal is None else salt,
    )


def _stamp_of(moment: datetime) -> str:
    return stamp(moment, "DecisionRecord.at")


def _entry_of(*values: object) -> str:
    return _json({name: value for name, value in zip(_PUBLIC_NAMES, values, strict=True) if value})


def of_completion(completion: Completion) -> Content:
    """Return the content of a completion's row; raises as `of_record` does."""
    public = {
        "kind": completion.kind,
        "told": completion.told,
        "taken": completion.taken,
        "error": completion.error,
        "seconds": dict(completion.seconds),
    }
    low, high = (None, None) if completion.numbers is None else map(_number, completion.numbers)
    return Content(
        "completion",
        None,
        ascii_text(completion.completes),
        stamp(completion.at, "Completion.at"),
        None,
        low,
        high,
        _json({name: value for name, value in public.items() if value not in (None, {})}),
        None,
    )


def of_maintenance(kind: str, at: datetime, details: dict[str, Any]) -> Content:
    """Return the content of a row which says that the log was pruned, or a customer erased."""
    return Content(kind, None, None, stamp(at, "at"), None, None, None, _json(details), None)


def record_of(content: Content) -> DecisionRecord:
    """Return the decision of a row."""
    public: dict[str, Any] = json.loads(content.entry)
    private: dict[str, Any] = {} if content.personal is None else json.loads(content.personal)
    assert content.id is not None  # noqa: S101 - every decision has one
    return DecisionRecord(
        id=plain_text(content.id),
        at=datetime.fromisoformat(content.at),
        flow=public["flow"],
        kind=public["kind"],
        subject=Subject(
            customer_id=None if content.customer is None else plain_text(content.customer),
            is_visitor=public.get("is_visitor", False),
            campaign=None if content.campaign is None else plain_text(content.campaign),
            occurrence=public.get("occurrence"),
            action=public.get("action"),
            channels=tuple(public.get("channels", ())),
            promotions=tuple(public.get("promotions", ())),
        ),
        request_uid=public.get("request_uid"),
        event_key=public.get("event_key"),
        number=content.low,
        verdict=public.get("verdict"),
        reason=private.get("reason"),
        evidence=private.get("evidence", {}),
        additional_data=private.get("additional_data", {}),
        redelivered=public.get("redelivered", False),
        error=public.get("error"),
        seconds=public.get("seconds", {}),
        observed=public.get("observed"),
        decided=public.get("decided"),
        switch=public.get("switch"),
    )


def identify_check_of(content: Content) -> str | None:
    """Return the check of the secret under which the pseudonym of a decision's customer was made; None without one."""
    check: str | None = json.loads(content.entry).get("identify_check") if "identify_check" in content.entry else None
    return check


def payload_of(content: Content, payloads: PayloadCodec) -> tuple[bytes | None, bool]:
    """Return the payload of a decision's row, and whether it has one that the log's keys do not decrypt."""
    if content.personal is None or 'payload":"' not in content.personal:
        return None, False
    return payloads.decode(json.loads(content.personal))


def completion_of(content: Content) -> Completion:
    """Return the completion of a row."""
    public: dict[str, Any] = json.loads(content.entry)
    assert content.completes is not None  # noqa: S101 - every completion names a record
    numbers = None if content.low is None or content.high is None else (content.low, content.high)
    return Completion(
        at=datetime.fromisoformat(content.at),
        completes=plain_text(content.completes),
        numbers=numbers,
        kind=public["kind"],
        told=public.get("told"),
        taken=public.get("taken"),
        error=public.get("error"),
        seconds=public.get("seconds", {}),
    )


def final_completion(completions: Iterable[Completion]) -> Completion | None:
    """Return the one that counts of those that follow a record: that Optimove took it, else the last word.

    Nothing counts after `discarded`: later completions are about another record with the same number. That a later run
    sent nothing does not count if Optimove may have taken what an earlier one sent.
    """
    last: Completion | None = None
    for each in completions:
        if each.told == "nothing" and last is not None and last.kind == "undelivered" and last.taken is None:
            continue
        last = each
        if each.taken or each.kind == "discarded":
            break
    return last


def commitment(salt: bytes, customer: str | None, personal: str) -> bytes:
    """Return the commitment to the personal part of a row."""
    # HMAC-SHA256 by RFC 2104. `hmac.digest` lets other threads run each time, and waits for them in a busy process.
    text = f"{_NULL if customer is None else customer}\n{personal}".encode()
    key = salt.ljust(_BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(key.translate(_INNER) + text).digest()
    return hashlib.sha256(key.translate(_OUTER) + inner).digest()


def chained(previous: bytes, number: int, content: Content) -> bytes:
    """Return the hash of a row.

    Args:
        previous: The hash of the row before, or `GENESIS`.
        number: The row's number.
        content: The row's content, of which the personal part counts by its commitment alone.
    """
    kind, ident, completes, at, campaign, low, high, entry, committed, *_ = content
    null = _NULL
    text = (  # not in a loop: of each of a million records
        f"{number}\n{null if kind is None else kind}\n{null if ident is None else ident}\n"
        f"{null if completes is None else completes}\n{null if at is None else at}\n"
        f"{null if campaign is None else campaign}\n{null if low is None else low}\n"
        f"{null if high is None else high}\n{null if entry is None else entry}\n"
        f"{null if committed is None else committed.hex()}"
    )
    return hashlib.sha256(previous + text.encode()).digest()


class Verifier:
    """Checks the rows of a log in their order."""

    def __init__(self, number: int, digest: bytes) -> None:
        """Start behind a row.

        Args:
            number: The number of the last row before; 0 for none.
            digest: Its hash, or `GENESIS`.
        """
        self.number = number
        self.digest = digest
        self._blank: set[int] = set()

    def check(self, row: Row) -> ChainFault | None:
        """Check the next row."""
        if row.number != self.number + 1:
            return ChainFault(self.number + 1, "was removed")
        content = row.content
        try:
            fits = hmac.compare_digest(chained(self.digest, row.number, content), row.hash)
            fits = fits and not any(isinstance(value, str) and _NULL in value for value in content)
            if content.commitment is None or content.salt is None:
                fits = fits and content[_PERSONAL:] == (None, None, None)
                if content.commitment is not None:
                    self._blank.add(row.number)
            else:
                made = commitment(content.salt, content.customer, str(content.personal))
                fits = fits and hmac.compare_digest(made, content.commitment)
            if fits and content.type == "erasure":
                for low, high in json.loads(content.entry)["numbers"]:
                    self._blank.difference_update(range(low, high))
        except (TypeError, ValueError, AttributeError, KeyError):  # a column of another type than was written
            fits = False
        if not fits:
            return ChainFault(row.number, "was changed, or moved, or replaced by another one")
        self.number, self.digest = row.number, row.hash
        return None

    def finish(self, last: int) -> ChainFault | None:
        """Check that the log ends where it should, and that what was erased was erased by `erase`.

        Args:
            last: The highest number that was ever given to a row.
        """
        if self._blank:
            return ChainFault(min(self._blank), "has lost its personal part, and no erasure says so")
        return ChainFault(self.number + 1, "was removed") if self.number < last else None
