"""``--fail-under``: the robust accuracy that a run has to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import typer

from assay import grammar
from assay.cli import terminal
from assay.errors import GrammarError

if TYPE_CHECKING:
    from assay.evaluation import Evaluation
    from assay.threats import Threat


@final
@dataclass(frozen=True, kw_only=True)
class Required:
    """A share of all samples, and the eps at which it is required.

    Args:
        share: the least robust accuracy.
        eps: where on the curve of a run without a budget; None for a run with one.
    """

    share: float
    eps: float | None

    @staticmethod
    def read(text: str, threat: Threat) -> Required:
        """Read ``0.45``, or for a threat without a budget ``0.45@4/255``.

        Raises:
            BadParameter: it cannot be read, or does not fit the threat.

        Example:
            >>> from assay import Linf
            >>> Required.read("0.45@0.5/10", Linf())
            Required(share=0.45, eps=0.05)
        """
        first, at, second = text.partition("@")
        share, eps = _number(first, text), _number(second, text) if at else None
        if not 0 <= share <= 1:
            raise _wrong(f"{first.strip()} is not between 0 and 1")
        if eps is not None and threat.eps is not None:
            raise _wrong(f"the threat has a budget, {threat!r}: give the share alone, without @{second}")
        if eps is None and threat.eps is None:
            raise _wrong(f"{threat!r} has no budget: say at which eps, as in {text}@0.1")
        if eps is not None and not 0 <= eps < float("inf"):
            raise _wrong(f"eps cannot be {second.strip()}")
        return Required(share=share, eps=eps)

    def check(self, evaluation: Evaluation) -> None:
        """End with exit code 1 where the run did not reach it."""
        eps = self.eps
        reached = evaluation.robust_accuracy if eps is None else evaluation.accuracy_at(eps)
        assert reached is not None  # a run with a budget has it
        if reached < self.share:
            where = "" if eps is None else f" at eps {eps:g}"
            terminal.panel(
                "Below --fail-under", f"Robust accuracy{where} is {reached:.4f}; {self.share:g} is required."
            )
            raise typer.Exit(terminal.BELOW)


def _number(written: str, text: str) -> float:
    try:
        found = grammar.value(written)
    except GrammarError:
        found = None
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise _wrong(f"{text!r} is neither a share, such as 0.45, nor a share at an eps, such as 0.45@4/255")
    return float(found)


def _wrong(problem: str) -> typer.BadParameter:
    return typer.BadParameter(problem, param_hint="--fail-under")
