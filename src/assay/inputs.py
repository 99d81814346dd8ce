"""What may be given as inputs, labels and goals; every refusal says what was found and how to mend it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assay.errors import InputError, ModelError
from assay.goals import Goal, Targeted, Untargeted


def check_inputs(x: Any, bounds: tuple[float, float]) -> None:
    """Hold that `x` is a floating tensor `(b, ...)` of finite values inside the bounds.

    Raises:
        InputError: it is not.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"inputs must be a torch.Tensor; got {type(x).__name__}. Use torch.as_tensor(x).")
    if not x.is_floating_point():
        raise InputError(
            f"inputs must be floating point; got {x.dtype}. For 8-bit images use x.float() / 255 (and eps in the same "
            "unit, such as 8/255)."
        )
    if x.ndim < 2:
        raise InputError(f"inputs need a batch dimension, (b, ...); got shape {tuple(x.shape)}. Use x[None].")
    if len(x) == 0:
        raise InputError("inputs hold no samples.")
    if not bool(torch.isfinite(x).all()):
        bad = (~torch.isfinite(x)).flatten(1).any(dim=1).nonzero().squeeze(1)
        raise InputError(
            f"{len(bad)} of {len(x)} inputs hold NaN or infinite values (first: row {int(bad[0])}). "
            "Look at how they were read and scaled (a division by zero?), or leave these samples out."
        )
    low, high = (float(torch.tensor(b, dtype=x.dtype)) for b in bounds)  # as x itself can hold them
    least, most = (float(v) for v in x.detach().aminmax())
    if least < low or most > high:
        hint = (
            "If they are normalised, put the normalisation inside the model and give raw images"
            if least < 0 <= low
            else "If they are on the 0-255 scale, divide by 255"
            if most > 2 and high <= 1
            else "If rounding put them there, use x.clamp(*bounds)"
        )
        raise InputError(
            f"inputs run from {least:.6g} to {most:.6g}, outside the bounds {bounds}. {hint}; or give the threat the "
            "bounds that are valid for this model, such as Linf(eps, bounds=(-1, 1))."
        )


def as_goal(goal: Any, x: Tensor, rejected: int | None = None) -> Goal:
    """The goal itself, or `Untargeted` for labels; on x's device and as long as x.

    Args:
        goal: a goal, or labels.
        x: the inputs.
        rejected: the output that stands for rejected inputs, which is no success where labels are given.

    Raises:
        InputError: there is not one label or goal per sample.
    """
    aim: Goal = goal if isinstance(goal, Goal) else Untargeted(torch.as_tensor(goal), rejected=rejected)
    if len(aim) != len(x):
        raise InputError(f"there are {len(x)} inputs and {len(aim)} labels; they must be as many.")
    return aim.to(x.device)


def check_classes(goal: Goal, classes: int) -> None:
    """Hold that the goal's classes exist in a model of so many classes.

    Raises:
        InputError: a label is out of range.
        ModelError: there is a single class.
    """
    if isinstance(goal, (Untargeted, Targeted)) and len(goal):
        if classes < 2:
            raise ModelError(
                "the model returns one value per sample; attacks compare the logits of at least two classes. For a "
                "binary model with logit z return torch.stack([torch.zeros_like(z), z], dim=1)."
            )
        least, most = int(goal.classes.min()), int(goal.classes.max())
        if least < 0 or most >= classes:
            raise InputError(
                f"labels run from {least} to {most}, but the model gives {classes} classes, 0 to {classes - 1}. "
                "Check that labels start at 0 and belong to this model's data."
            )
