"""Which corruptions a list of names stands for."""

from __future__ import annotations

from collections.abc import Sequence

from assay import registry
from assay.corruptions.base import Corruption
from assay.errors import SettingError

_GROUPS = ("common", "extra", "all", "noise", "blur", "weather", "digital")


def select(names: str | Sequence[str] = "common") -> tuple[type[Corruption], ...]:
    """The corruptions of these names, in the order of the published tables, each once.

    Args:
        names: names, or groups: "common" (the 15 of the published mean), "extra" (the other four), "all", "noise",
            "blur", "weather", "digital" (common ones only).

    Raises:
        SettingError: a name is none of them, or there is no name.

    Example:
        >>> [kind.slug for kind in select(["noise", "fog"])]
        ['gaussian_noise', 'shot_noise', 'impulse_noise', 'fog']
    """
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise SettingError("no corruption is named: give some, or all of them as 'all'.")
    known: dict[str, type[Corruption]] = {entry.name: entry.load() for entry in registry.entries("corruption")}
    found: set[str] = set()
    for name in wanted:
        group = name.casefold()
        entry = registry.find("corruption", name)
        if entry is not None:
            found.add(entry.name)
        elif group in _GROUPS:
            found |= {own for own, kind in known.items() if _is_in(kind, group)}
        else:
            raise SettingError(
                f"unknown corruption {name!r}. {registry.hint(name, [*known, *_GROUPS])} Groups are "
                f"{', '.join(_GROUPS)}."
            )
    return tuple(kind for own, kind in known.items() if own in found)


def _is_in(kind: type[Corruption], group: str) -> bool:
    if group in ("all", "extra"):
        return kind.extra or group == "all"
    return not kind.extra and group in ("common", kind.group)
