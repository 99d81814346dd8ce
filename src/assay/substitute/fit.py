"""``assay.fit_substitute``: train a network on a target's decisions, with a limited number of questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from assay.attacks.base import evaluating
from assay.data import Data
from assay.errors import ModelError, SettingError
from assay.evaluation.chunks import placement
from assay.inputs import check_inputs
from assay.rng import derive
from assay.substitute.learner import Learner
from assay.substitute.questions import Questions
from assay.substitute.settings import Settings
from assay.substitute.substitute import Substitute
from assay.training.keep import network as built

_SMALL: dict[tuple[int, ...], str] = {(1, 28, 28): "FashionCNN()", (1, 8, 8): "DigitsMLP()"}  # when none is named


def fit_substitute(
    target: Any,
    data: Any,
    *,
    max_queries: int,
    network: str | nn.Module | None = None,
    rounds: int = 6,
    lam: float = 0.1,
    initial: int = 150,
    doublings: int = 3,
    reservoir: int = 400,
    period: int = 0,
    epochs: int = 10,
    batch: int = 32,
    lr: float = 0.001,
    held_out: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    progress: Callable[[Substitute], None] | None = None,
) -> Substitute:
    r"""Train a network that decides as a target does, from the target's decisions alone.

    The substitute F is trained on what is known, S; then the target O is asked about new inputs along its slopes:

    $$S \leftarrow S \cup \{\operatorname{clip}(x + \lambda \operatorname{sign} \nabla_x F_{O(x)}(x)) : x \in S'\},$$

    S' all of S in the first `doublings` rounds and `reservoir` of it afterwards. With n first inputs this asks
    `n * 2^doublings + reservoir * (rounds - doublings)` questions, and never more than `max_queries`: when they are
    used up, the substitute is trained once more on everything that is known.

    Args:
        target: a module or callable that returns labels or scores; it is asked for decisions only.
        data: a few inputs of the target's kind: (x, y), a map-style Dataset, or an `assay.Data`. Labels are not used.
        max_queries: inputs that the target may be asked about, in all.
        network: the substitute: an expression ("FashionCNN(channels=16)"), a MODEL to go on from, or a module, which is
            trained in place. None takes a small one for inputs of 1x28x28 or 1x8x8.
        rounds: augmentations.
        lam: the step of an augmentation, as a share of the range of valid values.
        initial: first inputs, drawn from `data`.
        doublings: augmentations of everything that is known.
        reservoir: inputs that each later one is made from.
        period: augmentations after which the step changes its sign; 0 for never.
        epochs: passes over what is known in each training.
        batch: inputs in a step of it.
        lr: its learning rate (Adam).
        held_out: questions kept for other inputs of `data`, to measure how far substitute and target agree.
        bounds: the smallest and largest valid input value.
        seed: key of all random draws.
        progress: called with the substitute after each training.

    Returns:
        The substitute. `save` makes a MODEL of it, for `Transfer(surrogate=...)`.

    Raises:
        InputError: inputs lie outside the bounds.
        ModelError: the target's answers cannot be used, or the network does not fit them.
        SettingError: a setting is out of range, or a network has to be named.

    Deviations:
        The paper trains with SGD (learning rate 0.01, momentum 0.9); Adam needs fewer steps for sets as
        small as the first. Its reservoir sampling draws the same distribution as a choice without replacement, which is
        what is done here. Slopes are those of the logarithm of the probability, which have the same signs and do not
        vanish.

    References:
        Papernot, McDaniel, Goodfellow, Jha, Celik, Swami, "Practical black-box attacks against machine learning",
        AsiaCCS 2017, https://arxiv.org/abs/1602.02697

    Example:
        >>> import assay
        >>> target, data = assay.load_model("LabelsOnly('digits-mlp')"), assay.load_data("digits", limit=300)
        >>> found = fit_substitute(target, data, max_queries=250, rounds=2, held_out=50)
        >>> found.queries, found.agreement > 0.5
        (250, True)
    """
    how = Settings(
        max_queries=max_queries,
        rounds=rounds,
        initial=initial,
        doublings=doublings,
        reservoir=reservoir,
        lam=lam,
        period=period,
        epochs=epochs,
        batch=batch,
        lr=lr,
        held_out=held_out,
    )
    samples = Data.of(data)
    first, others = _drawn(samples, how, bounds, seed)
    net, text = starting_network(network, first[:1], seed)
    place, dtype = placement(target, first.device)
    first, others = (x.to(place, placement(net, place)[1]) for x in (first, others))
    learner = Learner(net, how, bounds, seed, place)
    questions = Questions(target, how.max_queries - len(others), place, dtype)

    def found(agreement: float | None = None) -> Substitute:
        return Substitute(
            model=net,
            network=text,
            queries=questions.asked,
            rounds=tuple(learner.rounds),
            agreement=agreement,
            settings={**asdict(how), "seed": seed, "bounds": list(bounds), "data": samples.name},
        )

    learner.learn(first, questions)
    for number in range(how.rounds + 1):
        learner.train(number)
        if progress is not None:
            progress(found())
        if number == how.rounds or not learner.learn(learner.augmented(number), questions):
            break
    questions.allow(len(others))
    labels = questions.answer(others)
    return found(learner.agreement(others[: len(labels)], labels) if len(labels) else None)


def _drawn(samples: Data, how: Settings, bounds: tuple[float, float], seed: int) -> tuple[Tensor, Tensor]:
    """The first inputs, and those that are held out."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(derive(seed, "first") % 2**63))
    count = min(how.initial, how.max_queries - how.held_out)
    if len(samples) < how.held_out + 1:
        raise SettingError(f"held_out is {how.held_out}, and there are {len(samples)} samples in all.")
    count = min(count, len(samples) - how.held_out)
    x, _, _ = samples.gather(order[: count + how.held_out])
    check_inputs(x, bounds)
    return x[:count], x[count:]


def starting_network(network: str | nn.Module | None, x: Tensor, seed: int) -> tuple[nn.Module, str | None]:
    """The network before its training, and the text that builds one like it; tried on one input.

    Args:
        network: as for `fit_substitute`.
        x: an input of the target's kind, `(1, *shape)`.
        seed: key of its first weights.

    Raises:
        ModelError: there is no such network, or it does not take the input.
        SettingError: a network has to be named.
    """
    shape = tuple(x.shape[1:])
    if network is None and shape not in _SMALL:
        raise SettingError(
            f"name a network for inputs of shape {shape}, such as network='package.module:callable' or one of "
            "`assay list networks`."
        )
    net, text = built(_SMALL[shape] if network is None else network, derive(seed, "substitute"))
    place, dtype = placement(net, x.device)
    try:
        with torch.no_grad(), evaluating(net):
            output = net(x.to(place, dtype))
    except RuntimeError as error:
        raise ModelError(
            f"the network {text or type(net).__name__} takes no inputs of shape {shape}: {error}"
        ) from error
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise ModelError(f"the network {text or type(net).__name__} does not return scores (b, classes).")
    return net, text
