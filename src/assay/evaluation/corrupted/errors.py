"""Corruption errors: how often a model is wrong on corrupted images, in parts of how often a baseline is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from assay.errors import SettingError

Cells = Mapping[tuple[str, int], float]  # error of each corruption (by its published name) and severity


@final
@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The errors that others are measured against.

    Attributes:
        name: what tables call it.
        clean: its error on clean images; None where it is not known.
        cells: its errors.
        whole: only their means over all five severities are known, which stand in each of them.
        data: the name of the images that it was measured on; None where it is not known.
        digest: of those images.
    """

    name: str
    clean: float | None
    cells: Cells
    whole: bool = False
    data: str | None = None
    digest: str | None = None


# Mean error of AlexNet over the five severities of ImageNet-C, and its error on the clean images.
_ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
ALEXNET = Baseline(
    name="AlexNet",
    clean=0.435,
    cells={(slug, severity): error for slug, error in _ALEXNET.items() for severity in range(1, 6)},
    whole=True,
)


def check_alexnet(classes: int | None, severities: int, table: str | None) -> None:
    """Hold that errors can be compared with AlexNet's.

    Args:
        classes: of the data, where they are known.
        severities: how many are measured.
        table: whose parameters the images have, where it is known.

    Raises:
        SettingError: they cannot.
    """
    if severities < 5:
        raise SettingError("AlexNet's errors are means over five severities: measure all, or take another baseline.")
    if classes not in (None, 1000):
        raise SettingError(
            f"AlexNet's errors are those of ImageNet-C, of 1000 classes, and these data have {classes}: take a run of "
            "your own as the baseline."
        )
    if table not in (None, "imagenet"):
        raise SettingError(
            "AlexNet's errors are those on ImageNet-C, and images of this size are corrupted with the parameters of "
            "CIFAR-10-C: take a run of your own as the baseline (or table='imagenet', where they are ImageNet's)."
        )


def corruption_error(cells: Cells, baseline: Baseline, slug: str, *, clean: float | None = None) -> float | None:
    r"""The error under one corruption in parts of the baseline's, 1 where both are alike.

    $CE_c = \sum_s E_{s,c} / \sum_s B_{s,c}$, over the severities of the model. With the model's clean error
    $E$ both sums are of what the corruption adds: $\sum_s (E_{s,c} - E) / \sum_s (B_{s,c} - B)$.

    Args:
        cells: errors of the model.
        baseline: the errors to divide by.
        slug: the corruption.
        clean: the model's error on clean images, for the relative error.

    Returns:
        None where the baseline does not know the corruption at these severities, or was never (more) wrong.

    References:
        Hendrycks, Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR
        2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> half = {key: error / 2 for key, error in ALEXNET.cells.items()}
        >>> corruption_error(half, ALEXNET, "fog")
        0.5
    """
    keys = [key for key in cells if key[0] == slug]
    if not keys or any(key not in baseline.cells for key in keys) or (baseline.whole and len(keys) < 5):
        return None
    off, base = 0.0, 0.0
    if clean is not None:
        if baseline.clean is None:
            return None
        off, base = clean, baseline.clean
    under = sum(baseline.cells[key] - base for key in keys)
    return sum(cells[key] - off for key in keys) / under if under > 1e-12 else None


def mean_corruption_error(
    cells: Cells, baseline: Baseline, slugs: list[str], *, clean: float | None = None
) -> float | None:
    """The mean of the corruption errors of these corruptions (mCE); None where one of them is not known.

    Raises:
        SettingError: there is no corruption.

    Example:
        >>> round(mean_corruption_error(ALEXNET.cells, ALEXNET, list(_ALEXNET)), 9)
        1.0
    """
    if not slugs:
        raise SettingError("there is no corruption to take the mean of.")
    found = [corruption_error(cells, baseline, slug, clean=clean) for slug in slugs]
    known = [each for each in found if each is not None]
    return sum(known) / len(known) if len(known) == len(found) else None
