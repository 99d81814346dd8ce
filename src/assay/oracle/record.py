"""What is known of each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Record:
    """What the referee knows, one row per sample; written in place only, so that parts and views share it.

    Attributes:
        active: still worth asking about.
        success: an allowed move that reaches the goal is known.
        distance: the smallest size of such a move; inf where none is known.
        x_adv: its moved input; the clean input where none is known.
        prediction: the decision at `x_adv`; -1 before the clean input was judged.
        forwards: forward passes spent.
        backwards: backward passes spent.
        worth: what it is worth where the goal has degrees; -inf where none is known.
        theta: the move that leads to `x_adv`, the identity where none is known; None where moves are not kept.
    """

    active: Tensor
    success: Tensor
    distance: Tensor
    x_adv: Tensor
    prediction: Tensor
    forwards: Tensor
    backwards: Tensor
    worth: Tensor
    theta: Tensor | None = None

    @classmethod
    def empty(cls, x: Tensor, *, referee: bool, theta: Tensor | None = None) -> Record:
        """Nothing is known yet; the moves that change nothing are given where moves are kept."""
        b = len(x)
        return cls(
            active=torch.ones(b, dtype=torch.bool, device=x.device),
            success=torch.zeros(b, dtype=torch.bool, device=x.device),
            distance=x.new_full((b,), math.inf),
            x_adv=x.clone() if referee else x,
            prediction=torch.full((b,), -1, dtype=torch.int64, device=x.device),
            forwards=torch.zeros(b, dtype=torch.int64, device=x.device),
            backwards=torch.zeros(b, dtype=torch.int64, device=x.device),
            worth=torch.full((b,), -math.inf, dtype=torch.float64, device=x.device),
            theta=theta,
        )
