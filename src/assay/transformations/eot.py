"""Expectation over transformations: the setting that has an oracle answer for many views of every input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from assay.errors import SettingError
from assay.rng import Keyed
from assay.transformations.base import Transformation, apply_each, check_range, draw_each
from assay.transformations.optics import check_transformations

MOST_DRAWS = 4096  # per question: each has a key of its own


@final
@dataclass(frozen=True, init=False, repr=False)
class EOT:
    """Ask about random views of an input in place of the input itself.

    Losses, gradients and outputs are means over the draws:

    `L(theta) = 1/draws sum_d loss(f(t_d(apply(x, theta))))`, `t_d` the transformations in their order.

    Every question about a sample has draws of its own; candidates within one question share them. A move counts as a
    success when the goal is reached in at least `share` of its draws, and again in at least that share of `confirm`
    others. A search asks about hundreds of moves, and with the first condition alone the luckiest draws would win; the
    others are the same for all moves of a sample. Of several candidates in one question the smallest that passes both
    counts. The clean input is judged in the same way: it is wrong at once when that share of its draws is.

    A model that is random itself needs no transformations: `EOT(draws=30)` asks it thirty times. Its own randomness is
    then not keyed, so that results repeat only as far as the model's do.

    Args:
        transformations: what happens to every input, in this order; each input sees draws of its own.
        draws: views of a move per question; each is a forward pass, and a backward one where gradients are asked for.
        share: in how many of its draws a move has to reach the goal, above 0 and at most 1.
        confirm: draws of the second judgement, spent on moves that passed the first; 0 for none. None takes `draws`, or
            0 for a single draw.

    Raises:
        SettingError: a setting is out of range, or something is no transformation.

    Deviations:
        The paper limits the mean perceptual distance between views of the clean and of the moved input; here the
        threat limits the move itself, as everywhere.

    References:
        Athalye, Engstrom, Ilyas, Kwok, "Synthesizing robust adversarial examples", ICML 2018,
        https://arxiv.org/abs/1707.07397

    Example:
        >>> from assay.transformations import Brightness, Rotate
        >>> EOT(Rotate(20), Brightness(0.1), draws=5)
        EOT(Rotate(20), Brightness(0.1), draws=5)
    """

    transformations: tuple[Transformation, ...]
    draws: int
    share: float
    confirm: int | None

    def __init__(
        self, *transformations: Transformation, draws: int = 10, share: float = 0.5, confirm: int | None = None
    ) -> None:
        check_transformations("EOT", transformations)
        for name, value, least in (("draws", draws, 1), ("confirm", confirm, 0)):
            whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST_DRAWS
            if not whole and not (name == "confirm" and value is None):
                raise SettingError(
                    f"{name} of EOT has to be a whole number from {least} to {MOST_DRAWS}; got {value!r}."
                )
        if not check_range("EOT", "share", share, 0, 1):
            raise SettingError("share of EOT has to be above 0: with 0 every move would be a success.")
        object.__setattr__(self, "transformations", transformations)
        object.__setattr__(self, "draws", draws)
        object.__setattr__(self, "share", float(share))
        object.__setattr__(self, "confirm", confirm)

    def __repr__(self) -> str:
        parts = [*map(repr, self.transformations), f"draws={self.draws}"]
        parts += [f"share={self.share!r}"] * (self.share != 0.5)
        parts += [f"confirm={self.confirm}"] * (self.confirm is not None)
        return f"EOT({', '.join(parts)})"

    @property
    def confirming(self) -> int:
        """Draws of the second judgement."""
        return (self.draws if self.draws > 1 else 0) if self.confirm is None else self.confirm

    def views(self, x: Tensor, rng: Keyed, bounds: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """One view of each input, `(n, *shape)`, differentiable in x.

        Args:
            x: inputs inside the bounds.
            rng: a stream of its own for each input.
            bounds: the smallest and largest valid input value, which the transformations see as 0 and 1.

        Raises:
            InputError: a transformation is for images, and these are none.
        """
        if not self.transformations:
            return x
        drawn = draw_each(self.transformations, rng, tuple(x.shape[1:]))
        low, high = bounds
        if bounds == (0.0, 1.0):
            return apply_each(self.transformations, x, drawn)
        seen = apply_each(self.transformations, (x - low) / (high - low), drawn)
        return (seen * (high - low) + low).clamp(low, high)
