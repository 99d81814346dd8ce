"""Grad-CAM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attribution.base import Attribution, Explanation, back, chosen, logits_of
from assay.errors import InputError, ModelError, SettingError
from assay.goals import Passes
from assay.registry import hint
from assay.rng import Keyed


@final
@dataclass(frozen=True, kw_only=True)
class GradCAM(Attribution):
    r"""Activations of a convolution, each channel weighed by the mean of its gradient: $[\sum_k w_k A_k]_+$.

    $w_k$ is the mean over all places of $\partial z_c / \partial A_k$. The map is brought to the size of the image by
    linear interpolation, one channel.

    Args:
        layer: the module whose output $A$ is, by its name (`model.named_modules()`); the last convolution that the
            model calls when None.

    Shapes:
        images `(b, channels, h, w)` -> `(b, 1, h, w)`

    Raises:
        SettingError: the name is empty.
        ModelError: on a call, the model has no such layer, or it gives no `(b, channels, h, w)`.
        InputError: on a call, the inputs are no images.

    References:
        Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra, "Grad-CAM: visual explanations from deep networks via
        gradient-based localization", ICCV 2017, https://arxiv.org/abs/1610.02391

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> GradCAM()(model, torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    layer: str | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and not self.layer:
            raise SettingError("layer is the name of a module, such as 'conv2'; got an empty name.")

    @property
    def passes(self) -> Passes:
        """One forward and one back."""
        return Passes(1, 1)

    def explain(self, model: Any, x: Tensor, classes: Tensor, rng: Keyed, *, graph: bool = False) -> Explanation:
        """Logits and maps of the size of the image."""
        del rng
        if x.ndim != 4:
            raise InputError(f"GradCAM explains images (b, channels, h, w); got shape {tuple(x.shape)}.")
        with torch.enable_grad():
            x = x if graph and x.requires_grad else x.detach().requires_grad_()
            with _outputs(self._layers(model)) as called:
                logits = logits_of(model, x)
            if not called or called[-1].ndim != 4:
                found = f"gave shape {tuple(called[-1].shape)}" if called else "was not called"
                raise ModelError(f"the layer of {self!r} {found}; it must give (b, channels, h, w): name another.")
            active = called[-1]
            (slope,) = back(chosen(logits, classes), active, graph=graph)
            weight = slope.mean(dim=(2, 3), keepdim=True)
            map = (weight * active).sum(dim=1, keepdim=True)
            map = F.interpolate(map.clamp_min(0), size=x.shape[2:], mode="bilinear", align_corners=False)
        return Explanation(logits, map) if graph else Explanation(logits.detach(), map.detach())

    def _layers(self, model: Any) -> list[nn.Module]:
        named = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
        if self.layer is None:
            found: list[nn.Module] = [module for module in named.values() if isinstance(module, nn.Conv2d)]
            if not found:
                raise ModelError("the model has no torch.nn.Conv2d, whose output GradCAM needs: name a layer.")
            return found
        if self.layer not in named:
            known = [name for name in named if name]
            raise ModelError(f"the model has no layer {self.layer!r}. {hint(self.layer, known)}")
        return [named[self.layer]]


@contextmanager
def _outputs(modules: list[nn.Module]) -> Iterator[list[Any]]:
    """What the one of these modules returned that the model called last; nothing before."""
    found: list[Any] = []

    def note(_: nn.Module, __: Any, output: Any) -> Any:
        found[:] = [output]
        return output.clone() if isinstance(output, Tensor) else output  # what works in place there, leaves ours alone

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
