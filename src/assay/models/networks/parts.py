"""What the networks share: normalisation of the input, activations, and pre-activation blocks."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from assay.errors import InputError, SettingError

_CIFAR_10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # mean and standard deviation of its training images
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "softplus": nn.Softplus}

Numbers = float | tuple[float, ...] | None


@final
class Standardize(nn.Module):
    """Zero mean and unit variance of each channel: `(x - mean) / std`.

    Args:
        channels: channels of the images.
        mean: of each channel, or of all; when None those of CIFAR-10 for 3 channels, else 0.5.
        std: standard deviation of each channel, or of all; when None as `mean`.

    Shapes:
        (b, channels, height, width) -> the same

    Raises:
        SettingError: the numbers do not fit the channels, or a deviation is not positive.
        InputError: on a call, the inputs are no images of so many channels.

    Example:
        >>> Standardize(1, 0.5, 0.25)(torch.ones(1, 1, 1, 1))
        tensor([[[[2.]]]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Numbers = None, std: Numbers = None) -> None:
        super().__init__()
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise SettingError(f"channels must be a whole number of at least 1; got {channels!r}.")
        for place, (name, numbers) in enumerate((("mean", mean), ("std", std))):
            own = (_CIFAR_10[place] if channels == 3 else 0.5) if numbers is None else numbers
            each = own if isinstance(own, tuple) else (own,) * channels
            if len(each) != channels:
                raise SettingError(f"{name} needs one number for each of {channels} channels; got {own!r}.")
            if name == "std" and min(each) <= 0:
                raise SettingError(f"std must be positive; got {own!r}.")
            self.register_buffer(name, torch.tensor(each).reshape(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The images as the network wants them."""
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise InputError(
                f"this network takes images (b, {len(self.mean)}, height, width); got shape {tuple(x.shape)}. Build it "
                "with channels= of the images."
            )
        return (x - self.mean) / self.std


def activation_of(name: str) -> nn.Module:
    """The activation of this name, which leaves its input as it is.

    Raises:
        SettingError: there is none.

    Example:
        >>> activation_of("silu")
        SiLU()
    """
    if name not in _ACTIVATIONS:
        raise SettingError(f"activation is one of {', '.join(_ACTIVATIONS)}; got {name!r}.")
    return _ACTIVATIONS[name]()


@final
class PreActBlock(nn.Module):
    """A residual block that normalises and activates before each of its two convolutions.

    `a = act(bn(x))`, `x' = conv(act(bn(conv(a)))) + s`, where s is x itself, or a 1x1 convolution of a where the number
    of channels or the resolution changes.

    Args:
        inside: channels of the input.
        outside: channels of the output.
        stride: of the first convolution.
        activation: its name.

    Shapes:
        (b, inside, h, w) -> (b, outside, h / stride, w / stride)

    References:
        He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016, https://arxiv.org/abs/1603.05027

    Example:
        >>> PreActBlock(4, 8, 2, "relu")(torch.zeros(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """

    def __init__(self, inside: int, outside: int, stride: int, activation: str) -> None:
        super().__init__()
        self.act = activation_of(activation)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        alike = inside == outside and stride == 1
        self.shortcut = None if alike else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, before its activation."""
        active = self.act(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        changed: Tensor = self.conv2(self.act(self.bn2(self.conv1(active))))
        return changed + kept


def pooled(x: Tensor) -> Tensor:
    """The mean of each channel, `(b, channels)`, for images of any size."""
    return x.mean(dim=(2, 3))


def first_weights(network: nn.Module) -> None:
    """First weights: He's for convolutions (by fan out), 0 for biases of linear layers; all else is torch's own.

    References:
        He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, https://arxiv.org/abs/1502.01852
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
