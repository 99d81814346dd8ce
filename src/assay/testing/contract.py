"""The contract that every attack keeps, as one call for your own attacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from assay.errors import SettingError
from assay.testing.case import THREATS, Case, ContractError, Factory
from assay.testing.checks import CHECKS
from assay.testing.problems import Norm

T = TypeVar("T", bound=str)


def check_attack(
    factory: Factory,
    *,
    norms: Iterable[Norm] = ("linf", "l2", "l1"),
    reach: float = 2.0,
    share: float = 1.0,
    targeted: bool = True,
    minimum: float | None = None,
    only: Iterable[str] | None = None,
) -> None:
    """Run every check of the contract on an attack, in each norm, and report all that it breaks at once.

    Args:
        factory: Builds the attack from a threat, such as `lambda threat: MyAttack(threat=threat)`.
        norms: The norms that the attack supports, of "linf", "l2", "l1" and "l0".
        reach: The multiple of the exact radius at which it must win on an affine problem.
        share: The share of the samples on which it must win there.
        targeted: Whether the attack accepts targets; one that does not must refuse them by name.
        minimum: The multiple of the exact distance that it must reach without eps; not checked when None.
        only: Names of checks from `CHECKS`; all of them when None.

    Raises:
        ContractError: What is broken, one line per check and norm.
        SettingError: A norm or check is unknown, or there is none to run.

    Example:
        >>> from assay.attacks import PGD
        >>> check_attack(lambda threat: PGD(threat=threat, steps=10), norms=["linf"], only=["counts_are_true"])
    """
    broken = []
    norms = _chosen("norms", norms, THREATS)
    names = _chosen("only", CHECKS if only is None else only, CHECKS)
    for norm in norms:
        case = Case(factory=factory, norm=norm, reach=reach, share=share, targeted=targeted, minimum=minimum)
        broken += [f"[{norm}] {name}: {problem}" for name in names if (problem := _run(name, case))]
    if broken:
        raise ContractError(f"the attack breaks {len(broken)} rules of the contract:\n" + "\n".join(broken))


def _chosen(setting: str, given: Iterable[T], known: Iterable[str]) -> list[T]:
    """The names as a list, all of them known and at least one."""
    found, allowed = list(given), list(known)
    unknown = [name for name in found if name not in allowed]
    if unknown or not found:
        what = f"has the unknown {unknown[0]!r}" if unknown else "is empty, so nothing would be checked"
        raise SettingError(f"{setting} {what}; known are {', '.join(allowed)}.")
    return found


def _run(name: str, case: Case) -> str:
    try:
        CHECKS[name](case)
    except ContractError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
