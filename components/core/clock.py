"""Time as an argument: days, `as_of`, and nothing that reads the wall clock except `wall_clock`.

All times are UTC. An `as_of` is exclusive: a run as of 2018-01-01T00:00Z knows events before that moment.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from components.core.errors import SettingsError

DAY = timedelta(days=1)


def parse_time(text: str) -> datetime:
    """ISO date or date-time -> aware UTC datetime; a date means its midnight, a naive time means UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"'{text}' is not a time. Write an ISO date or date-time, such as 2017-12-31 or 2017-12-31T00:00:00+00:00."
        ) from error
    return as_utc(moment)


def as_utc(moment: datetime) -> datetime:
    """Naive times are taken as UTC; others are converted."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def end_of_day(moment: datetime) -> datetime:
    """The first midnight after `moment`: the default `as_of` of a finished log."""
    return midnight(as_utc(moment).date()) + DAY


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def wall_clock() -> datetime:
    """Now, for run ids and 'created at' alone. Never for freshness, decay or windows: those take `as_of`."""
    return datetime.now(UTC)
