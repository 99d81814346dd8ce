"""Random changes of training inputs, batched on the device; each sample's draws are its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.errors import InputError, SettingError
from assay.rng import Keyed
from assay.training.mixing import beta, mix, permutation
from assay.training.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class Augmentation(ABC):
    """A random change of a batch of training samples. Subclasses are frozen dataclasses.

    What is drawn depends on the sample's own number and the key of `rng` alone, whatever batch, order or process the
    sample is in.
    """

    @abstractmethod
    def __call__(
        self, x: Tensor, y: Tensor, targets: Tensor | None, rng: Keyed, *, classes: int
    ) -> tuple[Tensor, Tensor | None]:
        """The changed inputs and targets; what is given stays as it is.

        Args:
            x: inputs.
            y: labels.
            targets: probabilities to learn in place of the labels, where an earlier change mixed samples.
            rng: one stream per sample.
            classes: how many there are.

        Shapes:
            x: `(b, *shape)`; y: `(b,)` int64; targets: `(b, classes)` or None.

        Raises:
            InputError: it is for images and these are none.
        """


@dataclass(frozen=True, kw_only=True)
class ImageAugmentation(Augmentation):
    """A change of images that leaves what they show."""

    def __call__(
        self, x: Tensor, y: Tensor, targets: Tensor | None, rng: Keyed, *, classes: int
    ) -> tuple[Tensor, Tensor | None]:
        """The changed images, the same targets."""
        if x.ndim != 4:
            raise InputError(
                f"{type(self).__name__} is for images (b, channels, height, width); got shape {tuple(x.shape)}. "
                "Leave it out of the augmentation."
            )
        return self.move(x, rng), targets

    @abstractmethod
    def move(self, x: Tensor, rng: Keyed) -> Tensor:
        """The changed images, `(b, channels, height, width)`."""


@final
@dataclass(frozen=True, kw_only=True)
class Crop(ImageAugmentation):
    """A shift by up to `padding` pixels along each axis: a random window of the image with a black border.

    Args:
        padding: width of the border on each side.

    Raises:
        SettingError: it is no whole number of at least 1.

    Example:
        >>> x = torch.ones(1, 1, 4, 4)
        >>> moved = Crop(padding=1).move(x, Keyed(0, torch.arange(1)))
        >>> moved.shape == x.shape
        True
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.padding, int) or self.padding < 1:
            raise SettingError(f"padding of Crop must be a whole number of at least 1; got {self.padding!r}.")

    def move(self, x: Tensor, rng: Keyed) -> Tensor:
        """A window of each image, at places drawn evenly."""
        _, _, height, width = x.shape
        first = rng.integers(0, 2 * self.padding + 1, 2)
        windows = F.pad(x, (self.padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # views, nothing is copied
        return _as(x, windows[torch.arange(len(x), device=x.device), :, first[:, 0], first[:, 1]])


@final
@dataclass(frozen=True, kw_only=True)
class Flip(ImageAugmentation):
    """A mirror image, left for right.

    Args:
        probability: of a mirror image.

    Raises:
        SettingError: it is out of range.

    Example:
        >>> Flip(probability=1.0).move(torch.tensor([[[[1.0, 2.0]]]]), Keyed(0, torch.arange(1)))
        tensor([[[[2., 1.]]]])
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "probability", high=1)

    def move(self, x: Tensor, rng: Keyed) -> Tensor:
        """Some of the images mirrored."""
        chosen = rng.uniform() < self.probability
        return _as(x, torch.where(chosen[:, None, None, None], x.flip(3), x))


@final
@dataclass(frozen=True, kw_only=True)
class Cutout(ImageAugmentation):
    """A grey square at a random place: its centre is any pixel, and what lies outside the image is cut off.

    Args:
        side: side of the square in pixels.
        fill: the grey.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The authors fill with the mean of the training images; here with a grey of 0.5 unless `fill` says otherwise.

    References:
        DeVries, Taylor, "Improved regularization of convolutional neural networks with cutout", 2017,
        https://arxiv.org/abs/1708.04552

    Example:
        >>> float(Cutout(side=1, fill=0.0).move(torch.ones(1, 1, 4, 4), Keyed(0, torch.arange(1))).sum())
        15.0
    """

    side: int = 8
    fill: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.side, int) or self.side < 1:
            raise SettingError(f"side of Cutout must be a whole number of at least 1; got {self.side!r}.")
        check_range(self, "fill", high=1)

    def move(self, x: Tensor, rng: Keyed) -> Tensor:
        """The images with a square each."""
        _, _, height, width = x.shape
        top = rng.integers(0, height, 1) - self.side // 2
        left = rng.integers(0, width, 1) - self.side // 2
        row = torch.arange(height, device=x.device) - top
        column = torch.arange(width, device=x.device) - left
        rows, columns = (row >= 0) & (row < self.side), (column >= 0) & (column < self.side)
        return _as(x, x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], self.fill))


@final
@dataclass(frozen=True, kw_only=True)
class Mixup(Augmentation):
    """Convex combinations of two samples and their targets: `l x_i + (1 - l) x_j`, `l y_i + (1 - l) y_j`.

    The partners j run through the batch in a circle in random order, so that nobody is mixed with itself and everybody
    is a partner once. They are the only draw that depends on which samples the batch holds (not on their order); with
    several processes each mixes its own part of a batch.

    Args:
        alpha: `l = max(u, 1 - u)` with u of Beta(alpha, alpha): a sample's own share is the larger one.

    Raises:
        SettingError: it is not positive.

    Deviations:
        The paper's code draws one share for the whole batch; here each sample has its own. With random pairs, which of
        the two has the larger share changes nothing.

    References:
        Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018,
        https://arxiv.org/abs/1710.09412

    Example:
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> mixed, targets = Mixup()(x, y, None, Keyed(0, torch.arange(2)), classes=2)
        >>> bool((mixed == targets).all()), targets.sum(dim=1)
        (True, tensor([1., 1.]))
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "alpha", above=True)

    def __call__(
        self, x: Tensor, y: Tensor, targets: Tensor | None, rng: Keyed, *, classes: int
    ) -> tuple[Tensor, Tensor | None]:
        """Mixed inputs and their targets."""
        if targets is None:
            targets = F.one_hot(y, classes).to(x.dtype)
        share = beta(rng, self.alpha)
        share = torch.maximum(share, 1 - share)
        circle = permutation(rng)
        partner = torch.empty_like(circle).scatter_(0, circle, circle.roll(-1))
        return _as(x, mix(x, x[partner], share)), mix(targets, targets[partner], share)


def _as(x: Tensor, changed: Tensor) -> Tensor:
    """The changed inputs in the memory order of the inputs."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return changed.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
