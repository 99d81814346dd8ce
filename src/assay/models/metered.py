"""A model that counts how often it was asked, and stops at a total."""

from __future__ import annotations

from typing import Any, final

from torch import nn

from assay.errors import QueriesSpent, SettingError
from assay.oracle import granted_access


@final
class Metered(nn.Module):
    """A model that is asked about so many inputs in all and no more.

    An attack that comes to the end of the total stops and returns what it found. The total is never exceeded: the first
    question that would do so is refused as a whole, and so is every one after it.

    Args:
        model: any model.
        total: inputs that it may be asked about; None only counts.

    Shapes:
        as the model

    Raises:
        SettingError: the total is below 1.
        QueriesSpent: on a call, when it is used up.

    Example:
        >>> import assay, torch
        >>> model = Metered(nn.Linear(4, 3), total=50)
        >>> attack = assay.attacks.PGD(threat=assay.Linf(0.01), steps=40)
        >>> result = attack(model, torch.rand(8, 4), torch.zeros(8, dtype=torch.int64))
        >>> model.spent <= 50
        True
    """

    def __init__(self, model: Any, total: int | None = None) -> None:
        super().__init__()
        if total is not None and total < 1:
            raise SettingError(f"a total of queries must be at least 1; got {total}.")
        self.model, self.total, self.access = model, total, granted_access(model)
        self.spent, self.exhausted = 0, False
        self.training = isinstance(model, nn.Module) and model.training

    def forward(self, x: Any) -> Any:
        """The model's output."""
        if self.total is not None and (self.exhausted or self.spent + len(x) > self.total):
            self.exhausted = True
            raise QueriesSpent(
                f"the total of {self.total} queries does not reach for {len(x)} more after {self.spent}: allow more "
                "(--total-queries, total=)."
            )
        output = self.model(x)
        self.spent += len(x)
        return output
