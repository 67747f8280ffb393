"""The subject of a decision: the customer and the campaign that a notification, or a row of a review, asks about.

Not a part of `decision_log`, which only those load who keep a log: every outcome says what it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

from ..models.notification import Action, Channel, Occurrence, Promotion, WebhookNotification


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was asked: may this customer get this campaign? The repr shows no customer.

    Attributes:
        customer_id: The customer; None when it is not known, as in a forged request.
        is_visitor: Whether that is a visitor's id.
        campaign: The campaign: a triggered one's series id, a scheduled one's `CampaignID`. Ids are kept as text.
        occurrence: The occurrence's id, or else its date.
        action: The action's id.
        channels: The channels' ids.
        promotions: The codes of the promotions that the campaign promises, or else their names.
    """

    customer_id: str | None = field(default=None, repr=False)
    is_visitor: bool = False
    campaign: str | None = None
    occurrence: str | None = None
    action: str | None = None
    channels: tuple[str, ...] = ()
    promotions: tuple[str, ...] = ()


UNKNOWN: Final = Subject()
"""That of a request of which nothing is known."""


def subject_of(notification: WebhookNotification) -> Subject:
    """Return what a notification asks about; a value of an undocumented type is left out."""
    # A field of an undocumented type is kept as received, so no type is assumed here.
    occurrence: object = notification.occurrence
    user = notification.user
    if not isinstance(occurrence, Occurrence):
        return Subject(customer_id=user.user_id, is_visitor=user.is_visitor is True)
    action: object = occurrence.action
    channels: object = action.channels if isinstance(action, Action) else ()
    promotions: object = action.promotions if isinstance(action, Action) else ()
    return Subject(
        customer_id=user.user_id,
        is_visitor=user.is_visitor is True,
        campaign=text_of(occurrence.series_id),
        occurrence=text_of(occurrence.occurrence_id) or text_of(occurrence.date),
        action=text_of(action.id) if isinstance(action, Action) else None,
        channels=_texts([each.id for each in _items(channels) if isinstance(each, Channel)]),
        promotions=_texts([each.code or each.name for each in _items(promotions) if isinstance(each, Promotion)]),
    )


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, tuple | list) else ()


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    return tuple([text for value in values if (text := text_of(value)) is not None])


def text_of(value: object) -> str | None:
    """Return an id as text; None when it is of another type, or a number that Python refuses to write."""
    if value is None or type(value) is str:
        return value
    try:
        return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        return None
