"""Several moves of one input, one after the other, each with a budget of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.errors import ThreatError
from assay.rng import Keyed
from assay.threats.base import Threat


@final
@dataclass(frozen=True, eq=False, repr=False, init=False)
class Combined(Threat):
    r"""Moves in order: `x_1 = apply_1(x, theta_1)`, `x_2 = apply_2(x_1, theta_2)`, ..., each within its part's budget.

    Every part is asked about the input as the parts before it leave it, so that an additive part knows the room that it
    really has. A move of the combination is the parts' moves flattened and put side by side, `(b, d)`; searches do
    plain arithmetic on it, and this class hands each part its own piece.

    The size of a move is the largest share of its budget that a part uses, $\max_i size_i / \epsilon_i$, and `eps`
    limits that: 1 grants every part its own budget, 0.5 half of it; without eps attacks look for the smallest common
    share. Projection, steepest ascent (by a step of `step * eps_i`), scale and start are the parts' own, in order.

    Args:
        threats: the parts in the order in which they move the input; each needs a budget, and all the same bounds.
        eps: the share of their budgets that all parts may use: one number, one per sample `(b,)`, or None.

    Shapes:
        x `(b, *shape)` of any shape that all parts take; moves `(b, d)`.

    Raises:
        ThreatError: there is no part, a part has no budget, or the parts' bounds differ.

    Deviations:
        Laidlaw and Feizi step by 0.001 in all parts; here searches step in shares of each part's budget, except where
        they are told a length (`ReColorAdv` is). What rounding adds to a part's size does not count as a share.

    References:
        Laidlaw, Feizi, "Functional adversarial attacks", NeurIPS 2019, https://arxiv.org/abs/1906.00001

    Example:
        >>> import torch
        >>> from assay import L2, Linf
        >>> threat = Combined(Linf(0.1), L2(1.0))
        >>> x = torch.full((1, 2), 0.5)
        >>> theta = threat.project(x, torch.tensor([[9.0, 9.0, 9.0, 0.0]]))
        >>> theta
        tensor([[0.1000, 0.1000, 0.4000, 0.0000]])
        >>> threat.with_eps(0.5)
        Combined(Linf(0.1), L2(1.0), eps=0.5)
    """

    parts: tuple[Threat, ...] = ()

    name: ClassVar[str] = "combined"

    def __init__(self, *threats: Threat, eps: float | Tensor | None = 1.0) -> None:
        for part in threats:
            if not isinstance(part, Threat):
                raise ThreatError(f"Combined takes threats, such as Linf(8 / 255); got {part!r}.")
            if part.eps is None:
                raise ThreatError(f"each part of Combined needs a budget: write {type(part).__name__}(eps).")
            if part.bounds != threats[0].bounds:
                raise ThreatError(
                    f"all parts of Combined need the same bounds; got {threats[0]!r} with {threats[0].bounds} and "
                    f"{part!r} with {part.bounds}."
                )
        if not threats:
            raise ThreatError("Combined needs at least one threat: Combined(Recolor(0.06), Linf(8 / 255)).")
        object.__setattr__(self, "parts", threats)
        object.__setattr__(self, "eps", eps)
        object.__setattr__(self, "bounds", threats[0].bounds)
        self.__post_init__()

    def __repr__(self) -> str:
        settings = [] if isinstance(self.eps, float) and self.eps == 1 else [f"eps={self.eps!r}"]
        return f"Combined({', '.join([*map(repr, self.parts), *settings])})"

    def with_eps(self, eps: float | Tensor | None) -> Self:
        """The same parts, which may use another share of their budgets."""
        return type(self)(*self.parts, eps=eps)

    def at(self, rows: Tensor) -> Self:
        """The threat of a part of the batch: what is per sample, here or in a part, is selected."""
        eps = self.eps[rows.to(self.eps.device)] if isinstance(self.eps, Tensor) else self.eps
        parts = [part.at(rows) for part in self.parts]
        same = eps is self.eps and all(part is own for part, own in zip(parts, self.parts, strict=True))
        return self if same else type(self)(*parts, eps=eps)

    def identity(self, x: Tensor) -> Tensor:
        """No part moves anything."""
        return _joined([part.identity(x) for part in self.parts])

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """A random allowed move of each part."""
        return self._in_order(x, lambda part, x, _: part.start(x, rng))

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The parts' moves one after the other."""
        for part, piece in zip(self.parts, self._pieces(x, theta), strict=True):
            x = part.apply(x, piece)
        return x

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Each part's nearest allowed move, given those of the parts before it."""
        pieces = self._pieces(x, theta)
        return self._in_order(x, lambda part, x, i: part.project(x, pieces[i]))

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Each part's steepest ascent by this share of its budget."""
        pieces, slopes = self._pieces(x, theta), self._pieces(x, grad)
        return _joined(
            [
                part.ascend(x, piece, slope, step * own.budget(x))
                for part, own, x, piece, slope in zip(
                    self._granted, self.parts, self._inputs(x, pieces), pieces, slopes, strict=True
                )
            ]
        )

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """The largest share of its own budget that a part uses."""
        pieces = self._pieces(x, theta)
        shares = []
        for part, x, piece in zip(self.parts, self._inputs(x, pieces), pieces, strict=True):  # noqa: B020
            used = (part.size(x, piece) - part.slack(x)).clamp_min(0)
            shares.append(torch.where(used > 0, used / part.budget(x), 0))
        return torch.stack(shares).amax(dim=0)

    def slack(self, x: Tensor) -> float:
        """What dividing by a budget may add; `size` takes the parts' own slack off."""
        return 4 * float(torch.finfo(x.dtype).eps)

    def scale(self, x: Tensor) -> Tensor:
        """That of each coordinate's part."""
        return _joined([part.scale(x).expand_as(part.identity(x)) for part in self._granted])

    def roughness(self, x: Tensor, theta: Tensor) -> Tensor:
        """The sum of the parts' roughness."""
        return self.part_roughness(x, theta).sum(dim=1)

    def part_roughness(self, x: Tensor, theta: Tensor) -> Tensor:
        """Each part's roughness, `(b, parts)`."""
        pieces = self._pieces(x, theta)
        return torch.stack([part.roughness(x, piece) for part, piece in zip(self.parts, pieces, strict=True)], dim=1)

    def unfolded(self, x: Tensor, theta: Tensor) -> list[tuple[Threat, Tensor, Tensor]]:
        """Each part with the input that it is given and its own move."""
        pieces = self._pieces(x, theta)
        return list(zip(self.parts, self._inputs(x, pieces), pieces, strict=True))

    @property
    def _granted(self) -> tuple[Threat, ...]:
        """The parts with what they may use of their budgets."""
        if self.eps is None:
            return tuple(part.with_eps(None) for part in self.parts)
        if isinstance(self.eps, float) and self.eps == 1:
            return self.parts
        return tuple(part.with_eps(_product(part.eps, self.eps)) for part in self.parts)

    def _pieces(self, x: Tensor, theta: Tensor) -> list[Tensor]:
        """The parts' moves, each in its own shape."""
        shapes = [part.identity(x[:1]).shape[1:] for part in self.parts]
        flat = torch.split(theta, [shape.numel() for shape in shapes], dim=1)
        return [piece.reshape(len(piece), *shape) for piece, shape in zip(flat, shapes, strict=True)]

    def _inputs(self, x: Tensor, pieces: list[Tensor]) -> list[Tensor]:
        """What each part is given: x as the parts before it leave it."""
        inputs = [x]
        for part, piece in zip(self.parts[:-1], pieces[:-1], strict=True):
            inputs.append(part.apply(inputs[-1], piece))
        return inputs

    def _in_order(self, x: Tensor, choose: Callable[[Threat, Tensor, int], Tensor]) -> Tensor:
        """A move whose pieces are chosen one after the other, each for the input that those before it lead to."""
        chosen: list[Tensor] = []
        for i, part in enumerate(self._granted):
            if chosen:
                x = self.parts[i - 1].apply(x, chosen[-1])
            chosen.append(choose(part, x, i))
        return _joined(chosen)


def _joined(pieces: list[Tensor]) -> Tensor:
    return torch.cat([piece.flatten(1) for piece in pieces], dim=1)


def _product(eps: float | Tensor | None, share: float | Tensor) -> float | Tensor:
    assert eps is not None  # a part without a budget is refused
    if isinstance(eps, Tensor) or isinstance(share, Tensor):  # in the widest type: inputs may be wider than eps
        return torch.as_tensor(eps, dtype=torch.float64) * torch.as_tensor(share, dtype=torch.float64)
    return eps * share
