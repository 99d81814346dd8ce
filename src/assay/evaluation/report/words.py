"""How the report writes numbers: percentages, counts, distances, durations, dates and budgets."""

from __future__ import annotations

import math
from datetime import datetime, timezone

SPACE = "\N{NO-BREAK SPACE}"
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal.

    Example:
        >>> percent(0.694).replace(SPACE, " ")
        '69.4 %'
    """
    return f"{100 * share:.1f}{SPACE}%" if math.isfinite(share) else "n/a"


def interval(low: float, high: float) -> str:
    """An interval of shares, the sign written once.

    Example:
        >>> interval(0.652, 0.733).replace(SPACE, " ")
        '65.2 to 73.3 %'
    """
    return f"{100 * low:.1f} to {percent(high)}"


def count(number: float) -> str:
    """A whole number with its thousands set apart.

    Example:
        >>> count(12345)
        '12,345'
    """
    return f"{number:,.0f}" if math.isfinite(number) else "n/a"


def rate(number: float) -> str:
    """A mean count: one decimal while it is small, whole and grouped when it is large.

    Example:
        >>> rate(8.04), rate(12345.6)
        ('8.0', '12,346')
    """
    return f"{number:.1f}" if abs(number) < 100 else count(number)


def quantity(number: float) -> str:
    """A distance or budget with four significant digits, in positional notation where that stays short.

    Example:
        >>> quantity(8 / 255), quantity(0.1), quantity(12.0), quantity(3e12)
        ('0.03137', '0.1', '12', '3e+12')
    """
    if not math.isfinite(number):
        return "none" if math.isnan(number) else "infinite"
    return f"{number:.4g}"


def size(number: float | None) -> str:
    """A distance: a whole number with its thousands set apart, any other with four digits; None is beyond all found.

    Example:
        >>> size(0.031372), size(12345.0), size(12.5), size(None)
        ('0.03137', '12,345', '12.5', 'none')
    """
    if number is None:
        return "none"
    return count(number) if number == round(number) else quantity(number)


def fraction(eps: float) -> str | None:
    """The budget as k/255 where it is such a fraction of the pixel range, else None.

    Example:
        >>> fraction(8 / 255), fraction(0.1)
        ('8/255', None)
    """
    steps = round(eps * 255)
    return f"{steps}/255" if 0 < steps <= 255 and math.isclose(eps * 255, steps, rel_tol=1e-4) else None


def duration(seconds: float) -> str:
    """A time that a person reads at a glance.

    Example:
        >>> [duration(s).replace(SPACE, " ") for s in (0.25, 41.2, 192, 7500)]
        ['0.25 s', '41 s', '3 min 12 s', '2 h 5 min']
    """
    if seconds < 9.95:
        return f"{seconds:.2g}{SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60}{SPACE}s"
    return f"{whole // 3600:,}{SPACE}h {whole % 3600 // 60}{SPACE}min"


def date(stamp: str | None) -> str:
    """An ISO time in words, in UTC when it carries a zone; text that is no time comes back as it is.

    Example:
        >>> date("2026-03-05T14:02:11+00:00")
        '5 March 2026, 14:02 UTC'
    """
    if not stamp:
        return "not recorded"
    try:
        moment = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError:
        return stamp
    zone = ""
    if moment.tzinfo is not None:
        moment, zone = moment.astimezone(timezone.utc), " UTC"
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M}{zone}"


def plural(number: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "image"), plural(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"
