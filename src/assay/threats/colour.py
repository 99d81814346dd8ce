"""Colour spaces in which colours are moved: conversions from sRGB and back, differentiable everywhere.

Every space is scaled so that the colours of sRGB have coordinates of about [0, 1]. Gradients are finite at every
colour, black and white included: where a conversion has a kink or a pole, the branch not taken is kept away from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

Name: TypeAlias = Literal["luv", "rgb", "ypbpr"]

# Linear sRGB to CIE 1931 XYZ: the primaries and the white D65 of IEC 61966-2-1. Rows sum to the white.
_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=torch.float64,
)
_RGB = torch.linalg.inv(_XYZ)
_WHITE_X, _WHITE_Y, _WHITE_Z = _XYZ.sum(dim=1).tolist()
_WHITE_U = 4 * _WHITE_X / (_WHITE_X + 15 * _WHITE_Y + 3 * _WHITE_Z)
_WHITE_V = 9 * _WHITE_Y / (_WHITE_X + 15 * _WHITE_Y + 3 * _WHITE_Z)
_SPAN_U, _SPAN_V = (0.124, 0.452), (0.157, 0.564)  # of sRGB's colours, whose primaries are the farthest

_KAPPA = (29 / 3) ** 3  # slope of L* in Y near black
_DARK = 8.0  # L* up to which it is linear in Y
_TINY = 1e-6
_LEAST_L = 1e-3  # below, a colour's chromaticity is that at this L*

# ITU-R BT.601
_YPBPR = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.5], [0.5, -0.587 / 1.402, -0.114 / 1.402]],
    dtype=torch.float64,
)
_YPBPR_BACK = torch.linalg.inv(_YPBPR)


@final
@dataclass(frozen=True)
class Space:
    """A colour space.

    Attributes:
        of: from sRGB in [0, 1] to the space's coordinates, `(b, 3, n)` to `(b, 3, n)`.
        back: the way back; colours outside sRGB get values outside [0, 1].
    """

    of: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def luv(rgb: Tensor) -> Tensor:
    r"""SRGB to CIELUV, scaled: $(L^*/100, (u^*+100)/200, (v^*+100)/200)$, with the white D65.

    Shapes:
        rgb `(b, 3, n)` in [0, 1]; returns `(b, 3, n)`. Saturated colours reach from -0.18 to 1.38 in u and v.

    Example:
        >>> luv(torch.ones(1, 3, 1)).flatten()
        tensor([1.0000, 0.5000, 0.5000])
    """
    small = rgb <= 0.04045
    linear = torch.where(small, rgb / 12.92, ((rgb.clamp_min(0.04) + 0.055) / 1.055) ** 2.4)
    x, y, z = _mixed(linear, _XYZ).unbind(1)
    dark = y <= (_DARK / _KAPPA)
    lightness = torch.where(dark, _KAPPA * y, 116 * y.clamp_min(_DARK / _KAPPA / 2) ** (1 / 3) - 16)
    total = x + 15 * y + 3 * z
    u = 13 * lightness * (4 * x - _WHITE_U * total) / total.clamp_min(_TINY)
    v = 13 * lightness * (9 * y - _WHITE_V * total) / total.clamp_min(_TINY)
    return torch.stack([lightness / 100, (u + 100) / 200, (v + 100) / 200], dim=1)


def luv_back(luv: Tensor) -> Tensor:
    """Scaled CIELUV to sRGB.

    Near black a small step in u or v leads to a chromaticity that no colour has: u' and v' are held within those of
    sRGB. Other colours outside sRGB get values outside [0, 1].

    Shapes:
        luv `(b, 3, n)`; returns `(b, 3, n)`.
    """
    lightness, u, v = luv[:, 0] * 100, luv[:, 1] * 200 - 100, luv[:, 2] * 200 - 100
    scale = 13 * lightness.clamp_min(_LEAST_L)
    up, vp = (u / scale + _WHITE_U).clamp(*_SPAN_U), (v / scale + _WHITE_V).clamp(*_SPAN_V)
    dark = lightness <= _DARK
    y = torch.where(dark, lightness / _KAPPA, ((lightness + 16) / 116) ** 3)
    x, z = y * 9 * up / (4 * vp), y * (12 - 3 * up - 20 * vp) / (4 * vp)
    linear = _mixed(torch.stack([x, y, z], dim=1), _RGB)
    small = linear <= 0.0031308
    return torch.where(small, 12.92 * linear, 1.055 * linear.clamp_min(0.003) ** (1 / 2.4) - 0.055)


def ypbpr(rgb: Tensor) -> Tensor:
    """SRGB to luma and two colour differences (BT.601), the latter shifted by 1/2."""
    return _mixed(rgb, _YPBPR) + rgb.new_tensor([0.0, 0.5, 0.5])[:, None]


def ypbpr_back(ypbpr: Tensor) -> Tensor:
    """Luma and shifted colour differences (BT.601) to sRGB."""
    return _mixed(ypbpr - ypbpr.new_tensor([0.0, 0.5, 0.5])[:, None], _YPBPR_BACK)


def _same(colours: Tensor) -> Tensor:
    return colours


def _mixed(colours: Tensor, matrix: Tensor) -> Tensor:
    """`matrix @ colour` for colours `(b, 3, n)`."""
    return matrix.to(colours) @ colours


SPACES: dict[Name, Space] = {
    "luv": Space(luv, luv_back),
    "rgb": Space(_same, _same),
    "ypbpr": Space(ypbpr, ypbpr_back),
}
