"""The contract that every attack keeps, as one call for your own attacks."""

from __future__ import annotations

from collections.abc import Iterable

from assay.testing.case import Case, ContractError, Factory
from assay.testing.checks import CHECKS
from assay.testing.problems import Norm


def check_attack(
    factory: Factory,
    *,
    norms: Iterable[Norm] = ("linf", "l2", "l1"),
    reach: float = 2.0,
    share: float = 1.0,
    targeted: bool = True,
    only: Iterable[str] | None = None,
) -> None:
    """Run every check of the contract on an attack, in each norm, and report all that it breaks at once.

    Args:
        factory: Builds the attack from a threat, such as `lambda threat: MyAttack(threat=threat)`.
        norms: The norms that the attack supports.
        reach: The multiple of the exact radius at which it must win on an affine problem.
        share: The share of the samples on which it must win there.
        targeted: Whether the attack accepts targets; one that does not must refuse them by name.
        only: Names of checks from `CHECKS`; all of them when None.

    Raises:
        ContractError: What is broken, one line per check and norm.

    Example:
        >>> from assay.attacks import PGD
        >>> check_attack(lambda threat: PGD(threat=threat, steps=10), norms=["linf"], only=["counts_are_true"])
    """
    broken = []
    names = list(CHECKS) if only is None else list(only)
    for norm in norms:
        case = Case(factory=factory, norm=norm, reach=reach, share=share, targeted=targeted)
        broken += [f"[{norm}] {name}: {problem}" for name in names if (problem := _run(name, case))]
    if broken:
        raise ContractError(f"the attack breaks {len(broken)} rules of the contract:\n" + "\n".join(broken))


def _run(name: str, case: Case) -> str:
    try:
        CHECKS[name](case)
    except ContractError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
