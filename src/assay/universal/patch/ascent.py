"""Adam on a patch, with a search for the class that it leads to most easily."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from assay.goals import Targeted
from assay.losses import Loss, cross_entropy, margin
from assay.rng import Keyed, derive
from assay.transformations import EOT, Transformation
from assay.transformations.optics import check_transformations
from assay.universal.method import Method, Step, Task, number, whole
from assay.universal.patch.pasting import Pasting

_FLOOR = 1e-16  # of Adam's denominator: the usual 1e-8 would stop it where the model is very sure of itself


@final
@dataclass(frozen=True, kw_only=True)
class PatchAscent(Method):
    r"""Adam on the patch, one step for each mini-batch of images, each with the patch at a place drawn anew.

    $p \leftarrow clip(p + Adam(g))$, where g is the gradient of the mean of $\log P(k | A(p, x, l, t))$ over images x
    and their places (l, t), and k the target. The step falls from `lr` to 0 in a straight line. It starts from grey.

    Without a target, when any other decision will do, k is the class that a patch reaches most easily: there are short
    runs towards each of `scouts` classes, and the one that changed most decisions in its second half goes on. (How many
    images a patch fools depends on its class by a factor of two, and a loss that only leads away from the present
    decision ends at one class as well, mostly not at the best.) Images that are k from the start are led away from it
    by $\min(-\log P(c | A(p, x, l, t)), \log K)$, with c the decision on the clean image and K the number of classes.
    With `scouts=0` all are.

    Without a target there may be `finish` steps more, which raise a smooth count of what is fooled: the mean of
    $sigmoid((\max_{j \ne c} z_j - z_c) / 2)$ over logits z. Only images near their boundary move it, and to any class.

    Args:
        pasting: shape and area of the patch, and how places are drawn.
        steps: steps of Adam.
        batch: images in a mini-batch.
        lr: length of the first step as a share of the range of valid values.
        scouts: how many classes are tried without a target: those that the model decides for most often.
        scout_steps: steps of Adam for each of them, before `steps`.
        finish: steps of Adam on the smooth count, after `steps`, from `lr` to 0 once more.
        augment: random transformations of the patched images, in this order, drawn anew for every image and step, such
            as `(Noise(0.05), JPEG(70, 95))`: what the images of the fit have in common (their compression, their light)
            is then nothing that the patch can rely on.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The paper fits towards a target that is given, and names no optimiser. Its patch may reach beyond the image's
        edge; here all of it lies inside. It transforms the patch alone; with `augment` the images change with it.

    References:
        Brown, Mane, Roy, Abadi, Gilmer, "Adversarial patch", NeurIPS workshop 2017, https://arxiv.org/abs/1712.09665
        Shafahi, Najibi, Xu, Dickerson, Davis, Goldstein, "Universal adversarial training", AAAI 2020,
        https://arxiv.org/abs/1811.11304 (the clipped loss).

    Example:
        >>> PatchAscent(steps=100).batch
        16
    """

    pasting: Pasting = field(default_factory=Pasting)
    steps: int = 1000
    batch: int = 16
    lr: float = 0.2
    scouts: int = 10
    scout_steps: int = 100
    finish: int = 0
    augment: tuple[Transformation, ...] = ()

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1)
        whole("batch", self.batch, 1)
        number("lr", self.lr)
        whole("scouts", self.scouts, 0)
        whole("scout_steps", self.scout_steps, 1)
        whole("finish", self.finish, 0)
        given = self.augment if isinstance(self.augment, (tuple, list)) else (self.augment,)
        object.__setattr__(self, "augment", tuple(given))
        check_transformations("augment", self.augment)

    def fit(self, task: Task, v: Tensor) -> Iterator[Step]:
        """The scouts, if any, and the run itself."""
        patch, aim = v[0], task.target
        tried = []
        if aim is None and self.scouts:
            often = torch.bincount(task.labels, minlength=task.classes)
            tried = often.argsort(descending=True, stable=True)[: self.scouts].tolist()
        finish = self.finish if task.target is None else 0
        climb = _Climb(self, task, len(tried) * self.scout_steps + self.steps + finish)
        best = -1.0
        for each in tried:
            found, share = yield from climb.run(v[0], climb.towards(each), self.scout_steps)
            if share > best:
                patch, aim, best = found, each, share
        patch, _ = yield from climb.run(patch, climb.towards(aim), self.steps)
        yield from climb.run(patch, _count, finish)


@final
class _Climb:
    """Runs of Adam on one task, and what they have spent together."""

    def __init__(self, method: PatchAscent, task: Task, steps: int) -> None:
        self.method, self.task = method, task
        self.positions = _batches(task, method.batch)
        self.total = steps * min(method.batch, len(task))
        self.step = self.seen = 0

    def towards(self, aim: int | None) -> Loss:
        """What leads to a class, or away from the present decisions."""
        return self._away if aim is None else partial(self._elsewhere, aim=aim)

    def run(self, patch: Tensor, loss: Loss, steps: int) -> Generator[Step, None, tuple[Tensor, float]]:
        """One run from a patch, raising a loss; towards the task's target where there is one.

        Returns:
            The patch, and the share of the images that it fooled in the second half of the run.
        """
        low, high = self.task.threat.bounds
        first = self.method.lr * (high - low)
        patch = patch.clone().requires_grad_()
        optimiser = torch.optim.Adam([patch], lr=first, eps=_FLOOR)
        fooled: list[Tensor] = []
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = first * (1 - step / steps)
            positions = next(self.positions)
            slope, won = self._slope(patch, loss, positions)
            patch.grad = -slope
            optimiser.step()
            with torch.no_grad():
                patch.clamp_(low, high)
            fooled.append(won)
            self.step, self.seen = self.step + 1, self.seen + len(positions)
            yield Step(
                v=patch.detach()[None].clone(),
                passes=self.seen // len(self.task),
                done=self.seen,
                total=max(self.seen, self.total),
                fooled=_share(fooled[-50:]),
                forwards=len(positions),
                backwards=len(positions),
            )
        return patch.detach(), _share(fooled[steps // 2 :])

    def _slope(self, patch: Tensor, loss: Loss, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss's gradient in the patch, and which of the images are fooled."""
        task, pasting = self.task, self.method.pasting
        augment = self.method.augment
        views = EOT(*augment, draws=1) if augment else None
        oracle = task.about(positions, eot=views, seed=derive(task.seed, "augment", self.step))
        rng = Keyed(derive(task.seed, "places", self.step), positions.to(oracle.x.device))
        places = pasting.draw(rng, *oracle.x.shape[-2:])
        with torch.enable_grad():
            moved = pasting.paste(oracle.x, patch, places)
        move = moved.detach() - oracle.x
        if task.target is None:
            _, grad, _ = oracle.gradient(move, loss)
        else:
            goal = Targeted(torch.full((len(positions),), task.target, device=oracle.x.device))
            _, grad, _ = oracle.towards(goal).gradient(move, cross_entropy)
        (slope,) = torch.autograd.grad(moved, patch, grad / len(positions))
        return slope, oracle.record.success.cpu()

    def _away(self, output: Tensor, goal: Any) -> Tensor:
        """From the decision on the clean image, until it is no likelier than the average class."""
        return cross_entropy(output, goal).clamp(max=math.log(self.task.classes))

    def _elsewhere(self, output: Tensor, goal: Any, *, aim: int) -> Tensor:
        """Towards the class `aim`; from it where it is the decision on the clean image."""
        towards = cross_entropy(output, Targeted(torch.full_like(goal.classes, aim)))
        return torch.where(goal.classes == aim, self._away(output, goal), towards)


def _count(output: Tensor, goal: Any) -> Tensor:
    """Near 1 where the decision is no longer that on the clean image, near 0 where it is; steepest between."""
    return (margin(output, goal) / 2).sigmoid()


def _share(fooled: list[Tensor]) -> float:
    return float(torch.cat(fooled).double().mean()) if fooled else 0.0


def _batches(task: Task, size: int) -> Iterator[Tensor]:
    """Mini-batches of one pass after the other, without end."""
    number = 0
    while True:
        yield from torch.split(task.order(number), size)
        number += 1
