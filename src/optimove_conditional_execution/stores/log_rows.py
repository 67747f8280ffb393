"""Entries of a decision log as the columns of its table, and back. A file of its own, since it knows no database."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from ..errors import ConfigurationError, PayloadError
from ..flows.decision_log import PLACE_DIGITS, Completion, DecisionRecord, RecordGroup, RecordGroups, Subject
from .hash_chain import GROUP, SALT_BYTES, Content, Row, commitment, commitments, members, with_members
from .payloads import PayloadCodec

_LARGEST: Final = 1_000
"""Records of a group: it is read as a whole."""

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

_OF_RECORD: Final = (
    "flow", "kind", "verdict", "request_uid", "event_key", "redelivered", "error", "observed", "decided", "switch",
)  # fmt: skip
_OF_SUBJECT: Final = ("is_visitor", "occurrence", "action", "channels", "promotions")
_OF_COMPLETION: Final = ("kind", "told", "taken", "error")
"""What the column `entry` holds, besides `microseconds`."""

_PUBLIC_NAMES: Final = (*_OF_RECORD, *_OF_SUBJECT, "microseconds", "identify_check")
_public_of: Final = attrgetter(*_OF_RECORD, *(f"subject.{name}" for name in _OF_SUBJECT))


def ascii_text(text: str) -> str:
    """Return a text as any database can store it, whatever its sender has put into it: a NUL, a lone surrogate."""
    return text if text.isascii() and text.isprintable() and "\\" not in text and '"' not in text else _escaped(text)


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def plain_text(stored: str) -> str:
    """Return the text that `ascii_text` was given."""
    return stored if "\\" not in stored else str(json.loads(f'"{stored}"'))


def _optional(text: str | None) -> str | None:
    return None if text is None else ascii_text(text)


def _json(value: object) -> str:
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(error) from None


def _unwritable(error: Exception) -> PayloadError:
    return PayloadError(f"A record for the decision log cannot be written as JSON ({type(error).__name__}).")


def _microseconds(seconds: Mapping[str, float]) -> dict[str, int]:
    """Return durations as they are written: a whole number is a fifth as long as a float, and sooner written."""
    try:
        return {name: round(each * 1e6) for name, each in seconds.items()}
    except (TypeError, ValueError, ArithmeticError) as error:
        raise _unwritable(error) from None


def _seconds(public: Mapping[str, Any]) -> dict[str, float]:
    return {name: each / 1e6 for name, each in public.get("microseconds", {}).items()}


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
    contents: list[Content] = []
    if type(entries) is RecordGroups:  # `isinstance` asks the ABC, which takes as long as a hash
        for group in entries.groups:
            contents += _of_group(group, identify, payloads)
        return contents
    for each in entries:
        if isinstance(each, DecisionRecord):
            contents.append(of_record(each, identify, os.urandom(SALT_BYTES), payloads))
        else:
            contents.append(of_completion(each))
    return contents


def _of_group(
    group: RecordGroup, identify: Callable[[str], str] | None, payloads: PayloadCodec | None
) -> Iterator[Content]:
    """Yield rows of many records each; a million of them must not take long."""
    if group.others is not None or len({subject.campaign for subject in group.subjects}) != 1:
        for record in group:
            yield of_record(record, identify, os.urandom(SALT_BYTES), payloads)
        return
    number = group.common.number
    for start, ident in zip(range(0, len(group.customers), _LARGEST), group.ids(_LARGEST), strict=True):
        yield _rows_of(
            replace(group.common, id=ident, number=None if number is None else number + start),
            group.customers[start : start + _LARGEST],
            group.subjects[start : start + _LARGEST],
            group,
            identify,
        )


def _rows_of(
    common: DecisionRecord,
    customers: Sequence[str],
    subjects: Sequence[Subject],
    group: RecordGroup,
    identify: Callable[[str], str] | None,
) -> Content:
    size, check, took = len(customers), getattr(identify, "check", None), _microseconds(common.seconds)
    distinct = {id(subject): subject for subject in subjects}
    places = {key: place for place, key in enumerate(distinct)}
    runs = [[places[key], len(list(same))] for key, same in groupby(map(id, subjects))]
    entries = [_entry_of(*_public_of(replace(common, subject=each)), took, check) for each in distinct.values()]
    names = customers if identify is None else [identify(name) for name in customers]
    plain = "".join(names)
    if ascii_text(plain) != plain:
        names = [ascii_text(name) for name in names]
    reasons, evidence, personal = group.reasons, group.evidence, [""] * size
    if reasons or evidence:
        given = [_personal(reasons.get(name), evidence.get(name), None) for name in customers]
        personal = [_json(each) if each else "" for each in given]
    salts = os.urandom(SALT_BYTES * size)
    low = None if common.number is None else _number(common.number)
    if low is not None:
        _number(low + size - 1)
    return Content(
        GROUP,
        size,
        ascii_text(common.id),
        None,
        _stamp_of(common.at),
        _optional(subjects[0].campaign),
        low,
        None,
        "\n".join([_json(runs), *entries]),
        "\n".join(["", *names, ""]),
        "\n".join(personal),
        salts,
        b"".join(commitments(salts, names, personal)),
    )


def singles(row: Row) -> Iterator[Row]:
    """Yield a row for each record of a row."""
    content = row.content
    if content.type != GROUP:
        yield row
        return
    ident = str(content.id)
    prefix, place = ident[:-PLACE_DIGITS], int(ident[-PLACE_DIGITS:])
    for index, each in enumerate(members(content)):
        single = content._replace(
            type="decision",
            size=1,
            id=f"{prefix}{place + index:0{PLACE_DIGITS}}",
            low=None if content.low is None else content.low + index,
            entry=each.entry,
            customer=None if each.is_erased else each.customer,
            personal=None if each.is_erased else each.personal or "{}",
            salt=None if each.is_erased else each.salt,
        )
        yield Row(row.first + index, row.hash, single)


def without(row: Row, customer: str) -> tuple[Content, list[int]]:
    """Return a row without the personal part of a customer, and the numbers of the records that were about them."""
    if row.content.type != GROUP:
        return row.content._replace(customer=None, personal=None, salt=None), [row.number]
    given = members(row.content)
    numbers = [row.first + place for place, each in enumerate(given) if each.customer == customer]
    kept = [each.erased() if each.customer == customer else each for each in given]
    return with_members(row.content, kept), numbers


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
    public = (*_public_of(record), _microseconds(record.seconds), check)
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
        1,
        ascii_text(record.id),
        None,
        _stamp_of(record.at),
        _optional(subject.campaign),
        None if record.number is None else _number(record.number),
        None,
        _entry_of(*public),
        customer,
        personal,
        None if personal is None else salt,
        None if personal is None else commitment(salt, customer, personal),
    )


def _stamp_of(moment: datetime) -> str:
    return stamp(moment, "DecisionRecord.at")


def _entry_of(*values: object) -> str:
    return _json({name: value for name, value in zip(_PUBLIC_NAMES, values, strict=True) if value})


def of_completion(completion: Completion) -> Content:
    """Return the content of a completion's row; raises as `of_record` does."""
    given: dict[str, object] = {"kind": completion.kind}
    if completion.told is not None:
        given["told"] = completion.told
    if completion.taken is not None:
        given["taken"] = completion.taken
    if completion.error is not None:
        given["error"] = completion.error
    if completion.seconds:
        given["microseconds"] = _microseconds(completion.seconds)
    low, high = (None, None) if completion.numbers is None else map(_number, completion.numbers)
    return Content(
        "completion",
        1,
        None,
        ascii_text(completion.completes),
        stamp(completion.at, "Completion.at"),
        None,
        low,
        high,
        _json(given),
    )


def of_maintenance(kind: str, at: datetime, details: dict[str, Any]) -> Content:
    """Return the content of a row which says that the log was pruned, or a customer erased."""
    return Content(kind, 1, None, None, stamp(at, "at"), None, None, None, _json(details))


def record_of(content: Content) -> DecisionRecord:
    """Return the decision of a row."""
    public: dict[str, Any] = json.loads(content.entry)
    private: dict[str, Any] = {} if content.personal is None else json.loads(content.personal)
    assert content.id is not None  # noqa: S101 - every decision has one
    of_subject: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in _named(public, _OF_SUBJECT).items()
    }
    subject = Subject(
        customer_id=None if content.customer is None else plain_text(content.customer),
        campaign=None if content.campaign is None else plain_text(content.campaign),
        **of_subject,
    )
    return DecisionRecord(
        id=plain_text(content.id),
        at=datetime.fromisoformat(content.at),
        subject=subject,
        number=content.low,
        seconds=_seconds(public),
        **_named(public, _OF_RECORD),
        **_named(private, ("reason", "evidence", "additional_data")),
    )


def _named(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


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
    return Completion(
        at=datetime.fromisoformat(content.at),
        completes=plain_text(content.completes),
        numbers=None if content.low is None or content.high is None else (content.low, content.high),
        seconds=_seconds(public),
        **_named(public, _OF_COMPLETION),
    )


def final_completion(completions: Iterable[Completion]) -> Completion | None:
    """Return the one that counts of those that follow a record: that Optimove took it, else the last word.

    Nothing counts after `discarded`: later completions are about another record with the same number. That a later run
    sent nothing, or was refused, does not count if Optimove may have taken what an earlier one sent.
    """
    last: Completion | None = None
    for each in completions:
        is_unknown = last is not None and last.kind == "undelivered" and last.taken is None
        if is_unknown and (each.told == "nothing" or (each.kind == "undelivered" and each.taken is False)):
            continue
        last = each
        if each.taken or each.kind == "discarded":
            break
    return last
