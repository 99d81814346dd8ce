"""Which class each sample is to be led to, by a rule or a number, where not any wrong one will do."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from assay.errors import AccessError, SettingError
from assay.oracle import Access
from assay.rng import Keyed, derive

UNTARGETED: Final = "untargeted"
RULES = ("random", "next", "least-likely")


def check(aim: str) -> None:
    """Refuse what is neither untargeted, a rule for targets, nor a class number.

    Raises:
        SettingError: it is none of these.
    """
    if aim not in (UNTARGETED, *RULES) and not aim.isdecimal():
        raise SettingError(f"unknown target {aim!r}: give {', '.join(RULES)}, or the number of a class (from 0).")


def check_access(aim: str, access: Access) -> None:
    """Hold that the model grants what targets are chosen by.

    Raises:
        AccessError: it does not.
    """
    if aim != UNTARGETED and access < Access.SCORES:
        raise AccessError("targets are chosen by the model's scores, and it grants labels only.")


def check_classes(aim: str, classes: int, name: str) -> None:
    """Hold that there is a class to be led to.

    Args:
        aim: a rule, or the number of a class.
        classes: of the model.
        name: what the data are called.

    Raises:
        SettingError: there is none.
    """
    if classes < 2:
        raise SettingError(f"a target needs at least two classes; the model knows {classes} on {name}.")
    if aim.isdecimal() and int(aim) >= classes:
        raise SettingError(f"there is no class {aim}: the model knows 0 to {classes - 1}.")


def targets(aim: str, y: Tensor, index: Tensor, output: Tensor, seed: int, name: str) -> Tensor:
    """The class that each sample shall get.

    Args:
        aim: a rule ("random": any other than the right one, each as likely; "next": the right one's number and 1;
            "least-likely": by the clean scores), or the number of a class.
        y: the right classes, `(b,)`.
        index: the samples' own numbers, `(b,)`, which draws depend on.
        output: scores of the clean samples, `(b, classes)`.
        seed: key of the draws.
        name: what the data are called.

    Raises:
        SettingError: there is no such class.
    """
    classes = output.shape[1]
    check_classes(aim, classes, name)
    if aim == "next":
        return (y + 1) % classes
    if aim == "least-likely":
        return output.scatter(1, y[:, None], torch.inf).argmin(dim=1)
    if aim == "random":
        drawn = Keyed(derive(seed, "targets"), index).integers(0, classes - 1)
        return drawn + (drawn >= y).to(drawn)
    return torch.full_like(y, int(aim))


def told(aim: str) -> str:
    """What a run looked for, in words.

    Example:
        >>> told("untargeted"), told("next"), told("3")
        ('untargeted', 'targeted (next)', 'targeted (class 3)')
    """
    if aim == UNTARGETED:
        return aim
    return f"targeted ({f'class {aim}' if aim.isdecimal() else aim})"


def led_astray(aim: str, y: Tensor) -> Tensor:
    """Which samples have a target that is not their right class already, `(b,)` bool."""
    return y != int(aim) if aim.isdecimal() else torch.ones_like(y, dtype=torch.bool)
