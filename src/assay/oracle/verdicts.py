"""What an output of the model says: a decision, and whether the goal is reached; of one pass or of many draws."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from assay.errors import ModelError
from assay.goals import Goal
from assay.oracle.access import Access


class Verdict(NamedTuple):
    """What was decided about moves, each `(n,)`.

    Attributes:
        reached: whether the goal is reached.
        decision: the model's decision.
    """

    reached: Tensor
    decision: Tensor


def decisions(goal: Goal, output: Any, granted: Access) -> Tensor:
    """The model's decisions, `(n,)` int64."""
    if granted is Access.LABELS and isinstance(output, Tensor) and not output.is_floating_point():
        return output.long()
    return goal.labels(output)


def reached(goal: Goal, output: Any, granted: Access) -> Tensor:
    """Whether the goal is reached, `(n,)` bool."""
    if granted is Access.LABELS:
        return goal.reached_labels(decisions(goal, output, granted))
    return goal.reached(output)


def of_draws(wins: Tensor, decided: Tensor, share: float) -> Verdict:
    """The verdict on moves that were asked about several times.

    The goal is reached where that share of the draws reached it. The decision is the most frequent one (the lowest of
    equals) of those draws that agree with this: so a sample counts as decided rightly unless the attack has won.

    Args:
        wins: which draws reached the goal, `(n, draws)` bool.
        decided: the decisions, `(n, draws)` int64.
        share: the smallest share of wins that is a success.
    """
    won = wins.sum(dim=1) >= share * wins.shape[1] - 1e-9  # 0.3 * 10 is more than 3 in floating point
    agrees = (wins == won[:, None]).long()
    least = int(decided.min())
    votes = agrees.new_zeros(len(wins), int(decided.max()) - least + 1).scatter_add_(1, decided - least, agrees)
    return Verdict(won, votes.argmax(dim=1) + least)


def check_output(output: Any, row: Tensor) -> None:
    """Hold that there is one answer for each sample that was asked about, and no NaN in it.

    Raises:
        ModelError: there is not.
    """
    if isinstance(output, tuple):
        for part in output:
            check_output(part, row)
        return
    if not isinstance(output, Tensor):
        return
    if output.ndim == 0 or len(output) != len(row):
        raise ModelError(
            f"the model returned an output of shape {tuple(output.shape)} for {len(row)} inputs; it must return "
            "one row for each input, in their order."
        )
    if output.is_floating_point() and bool(output.isnan().any()):
        bad = output.isnan().flatten(1).any(dim=1)
        raise ModelError(
            f"the model returned NaN for {int(bad.sum())} of {len(bad)} inputs inside the bounds "
            f"(first: sample {int(row[bad.nonzero()[0, 0]])}). No robustness can be measured on it: look for a "
            "division by zero, a logarithm of zero, an overflow in half precision, or broken weights."
        )


def pick(output: Any, rows: Tensor) -> Any:
    """These rows of an output that may be a list, or a named tuple of outputs."""
    if isinstance(output, tuple):
        return type(output)(*(pick(part, rows) for part in output))
    return output[rows] if isinstance(output, Tensor) else [output[i] for i in rows.tolist()]
