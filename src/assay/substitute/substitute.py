"""A trained substitute: the network, what it cost, and how far it agrees with its target."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from assay.models import saved


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Substitute:
    """A network that was trained on a target's decisions.

    Attributes:
        model: the network, in eval mode.
        network: what builds it without its weights; None where nobody knows.
        queries: inputs that the target was asked about, all included.
        rounds: of each training: how many inputs it had, and on how many of them the substitute then agreed.
        agreement: on which share of inputs that it did not learn from it agrees with the target; None where none were
            held out.
        settings: what it was trained with, and on.

    Example:
        >>> import assay
        >>> target, data = assay.load_model("digits-mlp"), assay.load_data("digits", limit=300)
        >>> found = assay.fit_substitute(target, data, network="DigitsMLP()", max_queries=100, rounds=1)
        >>> found.queries
        100
    """

    model: nn.Module
    network: str | None
    queries: int
    rounds: tuple[dict[str, Any], ...]
    agreement: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        known = "" if self.agreement is None else f", agrees on {self.agreement:.1%}"
        return f"Substitute({self.network or type(self.model).__name__}, {self.queries} queries{known})"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the weights, for JSON."""
        return {
            "kind": "substitute",
            "queries": self.queries,
            "agreement": self.agreement,
            "rounds": list(self.rounds),
            "settings": self.settings,
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write weights and card; the folder is then a MODEL, for `load_model` and `Transfer(surrogate=folder)`.

        Raises:
            StoreError: the folder cannot be written.
        """
        saved.save(folder, self.network, self.model.state_dict(), self.as_dict())
