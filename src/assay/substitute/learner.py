"""The substitute while it is trained, and what is known of its target."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from assay.errors import ModelError, SettingError
from assay.rng import derive
from assay.substitute.augmentation import along_slopes, chosen, step_of
from assay.substitute.questions import Questions
from assay.substitute.settings import Settings

_TOGETHER = 256  # inputs in one pass


@final
class Learner:
    """A network and the labelled inputs that it learns from.

    Args:
        net: the network; it is trained in place.
        how: the settings.
        bounds: the smallest and largest valid input value.
        seed: key of the order of training and of what is chosen.
        device: where it is trained.
    """

    def __init__(
        self, net: nn.Module, how: Settings, bounds: tuple[float, float], seed: int, device: torch.device
    ) -> None:
        self.net, self.how, self.bounds, self.seed = net.to(device).eval(), how, bounds, seed
        self.generator = torch.Generator().manual_seed(derive(seed, "rounds") % 2**63)
        self.optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=how.lr)
        self.x, self.y = torch.empty(0, device=device), torch.empty(0, dtype=torch.int64, device=device)
        self.rounds: list[dict[str, Any]] = []

    def learn(self, x: Tensor, questions: Questions) -> bool:
        """Ask about inputs, as many as is allowed; whether there was an answer."""
        if questions.left < len(x):
            x = x[torch.randperm(len(x), generator=self.generator)[: questions.left].sort().values.to(x.device)]
        labels = questions.answer(x)
        if len(self.x) == 0 and len(labels) == 0:
            raise SettingError("the target's own limit of queries leaves none for the first inputs.")
        if len(labels):
            self.x = torch.cat([self.x, x[: len(labels)]]) if len(self.x) else x[: len(labels)]
            self.y = torch.cat([self.y, labels])
        return len(labels) > 0

    def train(self, number: int) -> None:
        """Some passes over all that is known; dropout draws by the seed and the training's number."""
        self._check()
        self.net.train()
        with torch.enable_grad(), torch.random.fork_rng():
            torch.manual_seed(derive(self.seed, "train", number) % 2**63)
            for _ in range(self.how.epochs):
                order = torch.randperm(len(self.x), generator=self.generator).to(self.x.device)
                for rows in torch.split(order, self.how.batch):
                    if len(rows) == 1 < len(order):
                        continue  # batch norm cannot be trained on a single input
                    self.optimizer.zero_grad(set_to_none=True)
                    torch.nn.functional.cross_entropy(self.net(self.x[rows]), self.y[rows]).backward()  # type: ignore[no-untyped-call]
                    self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.net.eval()
        self.rounds.append({"samples": len(self.x), "agreement": self.agreement(self.x, self.y)})

    def augmented(self, number: int) -> Tensor:
        """New inputs, from all that are known or from some."""
        how, (low, high) = self.how, self.bounds
        rows = chosen(len(self.x), None if number < how.doublings else how.reservoir, self.generator).to(self.x.device)
        step = step_of(number, how.lam, how.period) * (high - low)
        return along_slopes(self.net, self.x[rows], self.y[rows], step, self.bounds)

    def agreement(self, x: Tensor, labels: Tensor) -> float:
        """On which share of inputs the substitute decides so."""
        with torch.no_grad():
            found = [self.net(part).argmax(dim=1) for part in torch.split(x, _TOGETHER)]
        return float((torch.cat(found) == labels).double().mean())

    def _check(self) -> None:
        """Hold that the network knows the target's classes.

        Raises:
            ModelError: it does not.
        """
        with torch.no_grad():
            classes = self.net(self.x[:1]).shape[1]
        if classes <= (most := int(self.y.max())):
            raise ModelError(
                f"the network knows {classes} classes, and the target answered class {most}: give it at least "
                f"{most + 1}."
            )
