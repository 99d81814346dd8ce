"""Checks for misuse: what a model's answers on a few samples give away before any attack is run, and after all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from assay import losses
from assay.attacks import Attack, Relay
from assay.evaluation.flags import Flag
from assay.evaluation.merge import Table
from assay.evaluation.shards import Shard
from assay.evaluation.stages import Suite
from assay.evaluation.store import Store
from assay.goals import Untargeted
from assay.oracle import Access, Oracle, granted_access, is_stochastic
from assay.rng import Keyed, drawing
from assay.threats import L0, Linf, Threat

PROBE = 32  # samples that the checks look at
_FARTHER = 1.1  # times the distance of another attack, from which on an attack was not near the smallest
_MANY = 0.2  # share of the samples of which that is worth a remark


def mode(model: Any) -> list[Flag]:
    """Flag a model, or modules of it, in train mode. A model that is in train mode as a whole is run in eval mode."""
    if not isinstance(model, nn.Module):
        return []
    if model.training:
        return [Flag.of("train-mode", "the model was in train mode; it was evaluated in eval mode.")]
    left = [name for name, module in model.named_modules() if module.training]
    if not left:
        return []
    shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    return [Flag.of("train-mode", f"modules inside the model are in train mode and were left so: {shown}.")]


def budget(threat: Threat, shape: torch.Size) -> list[Flag]:
    """Flag an eps that lets every input value become any other: eps in pixels for inputs in [0, 1], mostly.

    Args:
        threat: The run's threat.
        shape: The shape of one sample.
    """
    low, high = threat.bounds
    if isinstance(threat, L0):
        whole = float((shape[1:] if threat.unit == "pixel" else shape).numel())
    elif isinstance(threat, Linf):
        whole = high - low
    else:
        return []
    if not isinstance(threat.eps, float) or threat.eps < whole:
        return []
    return [
        Flag.of(
            "whole-range", f"eps {threat.eps:g} lets every input value take any other between {low:g} and {high:g}."
        )
    ]


def outputs(model: Any, x: Tensor, y: Tensor, threat: Threat) -> tuple[int, list[Flag]]:
    """Number of classes, and flags for outputs that mislead attacks.

    Args:
        model: The model, in the mode in which it will be evaluated.
        x: A few samples.
        y: Their labels.
        threat: The run's threat.

    Raises:
        InputError: Inputs or labels cannot be used.
        ModelError: The output holds NaN, is not a batch of logits, or has one class.
    """
    access = granted_access(model)
    oracle = Oracle(model, x, Untargeted(y), threat, access=access)
    oracle.judge_clean()
    if access is Access.LABELS:
        return max(2, int(torch.maximum(oracle.record.prediction, y).max()) + 1), []
    output = oracle.clean()
    flags = []
    if len(x) > 1 and not _differ(output, output[:1].expand_as(output), 1e-6) and not torch.equal(x[0], x[-1]):
        flags.append(Flag.of("constant-output", f"the model gives the same output for {len(x)} different inputs."))
    flags += probabilities(output)
    with torch.no_grad():
        output = _keyed(model, x) if is_stochastic(model) else output
        again = _keyed(model, x)
        first = _keyed(model, x[: 2 if len(x) > 2 else 1])
    if _differ(again, output, 1e-4):
        share = float((again != output).flatten(1).any(dim=1).double().mean())
        flags.append(
            Flag.of("random-output", f"the same input gave another output in {share:.0%} of {len(x)} samples.")
        )
    elif _differ(first, output[: len(first)], 1e-2):
        flags.append(Flag.of("batch-dependent", "a sample's output changes with the other samples of its batch."))
    return output.shape[1], flags


def probabilities(output: Tensor) -> list[Flag]:
    """Flag outputs `(b, classes)` to which a softmax was applied."""
    if bool((output < 0).any()) or bool(((output.sum(dim=1) - 1).abs() >= 1e-3).any()):
        return []
    return [Flag.of("softmax-outputs", "the outputs are probabilities (no value below 0, every row sums to 1).")]


def log_probabilities(output: Tensor) -> list[Flag]:
    """Flag outputs `(b, classes)` to which a log-softmax was applied."""
    if bool((output > 0).any()) or bool((output.logsumexp(dim=1).abs() >= 1e-3).any()):
        return []
    return [Flag.of("log-softmax-outputs", "the outputs are the logarithms of probabilities.")]


def gradients(model: Any, x: Tensor, y: Tensor, threat: Threat) -> list[Flag]:
    """Flags for gradients that vanish, on a few samples.

    Raises:
        ModelError: No gradient reaches the input at all.
    """

    def at_rest(loss: losses.Loss) -> Tensor:
        oracle = Oracle(model, x, Untargeted(y), threat, referee=False)  # a referee takes NaN out
        _, grad, _ = oracle.gradient(threat.identity(x), loss)
        return grad.flatten(1)

    steepest = at_rest(losses.margin)
    unknown = steepest.isnan().any(dim=1)
    margin = (steepest == 0).all(dim=1)
    entropy = (at_rest(losses.cross_entropy) == 0).all(dim=1)
    flags = []
    if bool(unknown.any()):
        flags.append(
            Flag.of(
                "nan-gradients",
                f"the gradient holds NaN for {float(unknown.double().mean()):.0%} of {len(x)} samples, though the "
                "output is sound.",
            )
        )
    if bool(margin.any()):
        flags.append(
            Flag.of(
                "zero-gradients",
                f"the gradient is exactly zero for {float(margin.double().mean()):.0%} of {len(x)} samples.",
            )
        )
    saturated = entropy & ~margin
    if bool(saturated.any()):
        flags.append(
            Flag.of(
                "saturated-loss",
                f"the gradient of the cross-entropy is exactly zero for {float(saturated.double().mean()):.0%} of "
                f"{len(x)} samples, and that of the margin is not: the logits are too far apart for it.",
            )
        )
    return flags


def outcome(table: Table, suite: Suite) -> list[Flag]:
    """Flags that only the finished run shows: a search that beats attacks which follow gradients alone."""
    numbers = range(1, len(suite.stages) + 1)
    white = [n for n in numbers if _by_gradients_alone(suite.stages[n - 1].attack)]
    flags = []
    for number in numbers:
        stage = suite.stages[number - 1]
        if _by_gradients_alone(stage.attack) or not white or number < white[0]:
            continue
        broken = int((table.stage == number).sum())
        asked = broken + int((table.robust | (table.stage > number)).sum())
        if broken >= max(3, min(0.02 * len(table), 0.1 * asked)):
            relay = stage.attack.access is Access.GRADIENTS
            kind = "in which a random search takes turns with gradients" if relay else "which uses no gradients"
            flags.append(
                Flag.of(
                    "search-beats-gradients" if relay else "black-box-beats-white-box",
                    f"{stage.name}, {kind}, broke {broken} of the {asked} samples that withstood "
                    f"{', '.join(suite.stages[n - 1].name for n in white if n < number)}.",
                )
            )
    return flags


def _by_gradients_alone(attack: Attack) -> bool:
    return attack.access is Access.GRADIENTS and not isinstance(attack, Relay)


def nearest(shards: list[list[Shard]], suite: Suite) -> list[Flag]:
    """Flags for a finished run without a budget: nothing found, attacks that disagree, gradients that mislead.

    Args:
        shards: The shards of each stage; each holds all samples that are right at first.
        suite: The stages.
    """
    distance = torch.stack([torch.cat([shard.columns["distance"] for shard in own]) for own in shards])
    least = distance.amin(dim=0)
    right, missed = len(least), int(least.isinf().sum())
    flags = []
    if missed:
        flags.append(
            Flag.of("not-found", f"no adversarial input was found for {missed} of {right} samples, at any distance.")
        )
    many = max(3, _MANY * right)
    farther = (distance > _FARTHER * least).sum(dim=1)
    if len(shards) > 1 and int(farther.min()) >= many:
        closest = suite.stages[int(farther.argmin())].name
        flags.append(
            Flag.of(
                "attacks-disagree",
                f"even {closest}, the attack that comes nearest most often, is more than {_FARTHER - 1:.0%} above the "
                f"smallest distance for {int(farther.min())} of {right} samples.",
            )
        )
    gradients = torch.tensor([stage.attack.access is Access.GRADIENTS for stage in suite.stages])
    if not bool(gradients.any()):
        return flags
    white = distance[gradients].amin(dim=0)
    for stage, own in zip(suite.stages, distance, strict=True):
        beaten = int((white > _FARTHER * own).sum())
        if stage.attack.access is not Access.GRADIENTS and beaten >= max(3, 0.02 * right):
            flags.append(
                Flag.of(
                    "black-box-beats-white-box",
                    f"{stage.name}, which uses no gradients, came nearer than all attacks with gradients by more than "
                    f"{_FARTHER - 1:.0%} for {beaten} of {right} samples.",
                )
            )
    return flags


def spent(store: Store, cut: int) -> Flag:
    """The flag of a run whose total of queries was used up.

    Args:
        store: The run.
        cut: Searches that were not brought to their end.
    """
    total = store.run.get("queries", {"total": None})["total"]
    words = f"the total of {total} queries" if total is not None else "an earlier total of queries"
    return Flag.of("queries-spent", f"{words} was used up; {cut} searches were not brought to their end.")


def _keyed(model: Any, x: Tensor) -> Tensor:
    """The model's answer, always with the same draws of what says that it is random."""
    with drawing(Keyed(0, torch.arange(len(x), device=x.device))):
        found: Tensor = model(x)
    return found


def _differ(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = b.abs().max().clamp_min(torch.finfo(b.dtype).tiny)
    return bool(((a - b).abs().max() / scale) > tolerance)
