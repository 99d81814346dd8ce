"""Named attacks for transfer that are settings of `PGD`: MI-FGSM with one more idea each. Settings can be combined."""

from __future__ import annotations

from typing import Any

from assay.attacks.pgd import PGD
from assay.losses import Loss
from assay.threats import Threat


def _momentum_steps(threat: Threat, steps: int, momentum: float, loss: str | Loss | None, **settings: Any) -> PGD:
    """MI-FGSM: steps of eps / steps from the clean input."""
    share = 1.0 / max(steps, 1)  # PGD refuses steps below 1
    plain: dict[str, Any] = {"random_start": False, "look_ahead": False}
    return PGD(threat=threat, steps=steps, rel_step=share, momentum=momentum, loss=loss, **plain, **settings)


def DIFGSM(  # noqa: N802
    *, threat: Threat, steps: int = 10, momentum: float = 1.0, diverse: float = 0.5, loss: str | Loss | None = None
) -> PGD:
    """Momentum iterative FGSM on inputs that are randomly resized and padded before the model sees them.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient steps.
        momentum: decay of the accumulated gradient; 0 is the paper's DI-FGSM, 1 its M-DI-FGSM.
        diverse: probability of a step's view to be resized and padded.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    Deviations:
        The paper enlarges images of 299 pixels to 299 to 330 and pads them to 330. A network's input size is taken
        as it is here: images shrink by as much in proportion, by bilinear weights where the paper takes the nearest
        pixel. The frame has the lowest valid value.

    References:
        Xie, Zhang, Zhou, Bai, Wang, Ren, Yuille, "Improving transferability of adversarial examples with input
        diversity", CVPR 2019, https://arxiv.org/abs/1803.06978

    Example:
        >>> import assay
        >>> DIFGSM(threat=assay.Linf(8 / 255)).diverse
        0.5
    """
    return _momentum_steps(threat, steps, momentum, loss, diverse=diverse)


def TIFGSM(  # noqa: N802
    *, threat: Threat, steps: int = 10, momentum: float = 1.0, kernel_radius: int = 7, loss: str | Loss | None = None
) -> PGD:
    """Momentum iterative FGSM along gradients smoothed by a Gaussian kernel, as if the input were shifted a little.

    Args:
        threat: which moves are allowed: a perturbation or a flow, with a budget eps.
        steps: gradient steps.
        momentum: decay of the accumulated gradient.
        kernel_radius: pixels to every side; 7 is the paper's kernel of 15 for images of 299. Small images need less.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    Raises:
        ThreatError: the moves are no images.

    References:
        Dong, Pang, Su, Zhu, "Evading defenses to transferable adversarial examples by translation-invariant attacks",
        CVPR 2019, https://arxiv.org/abs/1904.02884

    Example:
        >>> import assay
        >>> TIFGSM(threat=assay.Linf(8 / 255)).kernel_radius
        7
    """
    return _momentum_steps(threat, steps, momentum, loss, kernel_radius=kernel_radius)


def NIFGSM(*, threat: Threat, steps: int = 10, momentum: float = 1.0, loss: str | Loss | None = None) -> PGD:  # noqa: N802
    """Nesterov iterative FGSM: momentum whose gradients are taken where the running sum would lead.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient steps.
        momentum: decay of the accumulated gradient.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    Deviations:
        The paper looks at `x + step * momentum * g`. Here the jump is the threat's steepest ascent along g, for Linf
        its sign, so that it fits every threat; its mean absolute length is that of the authors' code, where g is a sum
        of gradients with a mean absolute value of 1.

    References:
        Lin, Song, He, Wang, Hopcroft, "Nesterov accelerated gradient and scale invariance for adversarial attacks",
        ICLR 2020, https://arxiv.org/abs/1908.06281

    Example:
        >>> import assay
        >>> NIFGSM(threat=assay.Linf(8 / 255)).nesterov
        True
    """
    return _momentum_steps(threat, steps, momentum, loss, nesterov=True)


def SINIFGSM(  # noqa: N802
    *, threat: Threat, steps: int = 10, momentum: float = 1.0, scales: int = 5, loss: str | Loss | None = None
) -> PGD:
    """Nesterov iterative FGSM on the mean gradient over copies of the input, each half as bright as the one before.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient steps.
        momentum: decay of the accumulated gradient.
        scales: copies, the input itself included; each is a pass in every step.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    Deviations:
        That of `NIFGSM`. Copies are darker: values go towards the lowest valid one, while the authors' code halves
        values between -1 and 1, which makes images grey.

    References:
        Lin, Song, He, Wang, Hopcroft, "Nesterov accelerated gradient and scale invariance for adversarial attacks",
        ICLR 2020, https://arxiv.org/abs/1908.06281

    Example:
        >>> import assay
        >>> SINIFGSM(threat=assay.Linf(8 / 255)).scales
        5
    """
    return _momentum_steps(threat, steps, momentum, loss, nesterov=True, scales=scales)


def VMIFGSM(  # noqa: N802
    *,
    threat: Threat,
    steps: int = 10,
    momentum: float = 1.0,
    neighbours: int = 20,
    reach: float = 1.5,
    loss: str | Loss | None = None,
) -> PGD:
    """Momentum iterative FGSM whose gradients are tuned by how they varied among neighbours in the step before.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient steps.
        momentum: decay of the accumulated gradient.
        neighbours: random moves around each point; each is a pass in every step.
        reach: how far away they are, as a multiple of eps.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own (cross-entropy).

    Deviations:
        Neighbours are random moves of the threat with a budget of `reach * eps`, for Linf uniform as in the paper and
        clipped to the bounds, where the authors' code leaves these. Together with `nesterov` they surround the point
        ahead.

    References:
        Wang, He, "Enhancing the transferability of adversarial attacks through variance tuning", CVPR 2021,
        https://arxiv.org/abs/2103.15571

    Example:
        >>> import assay
        >>> VMIFGSM(threat=assay.Linf(8 / 255)).neighbours
        20
    """
    return _momentum_steps(threat, steps, momentum, loss, neighbours=neighbours, reach=reach)
