"""``calibrate``: the thresholds of a detector, from inputs that nobody has attacked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from assay.data import adopted
from assay.data.parts import chunk, part
from assay.defenses import Defense, Detector
from assay.errors import SettingError
from assay.models.defended import read_defense
from assay.models.load import load_model


def calibrate(
    model: nn.Module | str,
    data: Any,
    defense: Detector | str,
    *,
    drop: float = 0.001,
    skip: int = 0,
    limit: int | None = None,
    device: str | torch.device = "cpu",
    step: Callable[[int, int], None] | None = None,
) -> Detector:
    """A detector with the thresholds that a share of validation data exceeds, for each of its statistics by itself.

    Its text, `repr(...)`, holds them: this is what `--defense` and `Defended('MODEL', ...)` take.

    Args:
        model: what is defended: a module, or what `load_model` reads.
        data: (x, y), a map-style Dataset, or what `load_data` loads; samples that nobody was trained on.
        defense: the detector, as an object or as text ("MagNet()").
        drop: the share of them that each statistic may reject, rounded down to whole samples.
        skip: leave out the first so many samples.
        limit: use at most so many of the rest.
        device: where it is computed.
        step: called with how many samples are done, and how many there are.

    Raises:
        SettingError: the defense rejects nothing, or the share is of no sample.
        AssayError: model, data or defense cannot be read.

    Example:
        >>> from assay.defenses import DensityDetector
        >>> from assay.models.networks import PixelCNN
        >>> data = torch.rand(40, 1, 4, 4), torch.zeros(40, dtype=torch.int64)
        >>> detector = DensityDetector(PixelCNN(width=2, dilations=(1,)))
        >>> len(calibrate(nn.Flatten(), data, detector, drop=0.1).thresholds)
        1
    """
    found: Defense = read_defense(defense) if isinstance(defense, str) else defense
    if not isinstance(found, Detector):
        raise SettingError(f"{found!r} rejects nothing, so it has no thresholds: give a detector such as MagNet().")
    samples = adopted(data)
    if not 0 <= skip < len(samples):
        raise SettingError(f"skip={skip} leaves nothing of {len(samples)} samples.")
    samples = part(samples, torch.arange(skip, len(samples))).take(limit)
    if 0 < drop * len(samples) < 1:
        raise SettingError(
            f"drop={drop:g} of {len(samples)} samples is less than one: give at least {round(1 / drop)} samples."
        )
    network = (load_model(model, device=device) if isinstance(model, str) else model).eval()
    found = found.to(device).eval()
    scores = []
    with torch.no_grad():
        for start in range(0, len(samples), size := chunk(samples)):
            x = samples.batch(start, start + size)[0].to(device)
            scores.append(found.judged(network, x)[0].cpu())
            if step is not None:
                step(min(start + size, len(samples)), len(samples))
    return found.calibrated(scores, drop)
