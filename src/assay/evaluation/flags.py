"""What the reader of a robust accuracy has to know about how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from assay.evaluation.schema import FlagRecord

Severity = Literal["error", "warning", "info"]

# code: (severity, cure); docs/checks.md has a section for each code.
_KNOWN: dict[str, tuple[Severity, str]] = {
    "train-mode": (
        "warning",
        "Call model.eval() before the evaluation.",
    ),
    "batch-dependent": (
        "error",
        "Put every normalisation layer in eval mode with running statistics (model.eval()), so that a prediction "
        "does not depend on the other samples of a batch.",
    ),
    "random-output": (
        "warning",
        "Average the gradient over the randomness (EOT) in the attack, or evaluate with the randomness fixed.",
    ),
    "softmax-outputs": (
        "warning",
        "Return logits: drop the final softmax, or return its logarithm.",
    ),
    "log-softmax-outputs": (
        "info",
        "Nothing to do where cross-entropy is trained, to which they are logits; drop the final log-softmax for "
        "recipes that compare logits, such as ALP.",
    ),
    "constant-output": (
        "error",
        "Check that the weights were loaded and that inputs reach the model unscaled.",
    ),
    "zero-gradients": (
        "warning",
        "Use an attack without gradients (Square), or replace the step that stops them by a differentiable one "
        "(BPDA) and evaluate that.",
    ),
    "nan-gradients": (
        "warning",
        "Look for sqrt, log, division or norm at 0, also in the branch of a torch.where that is not taken, and guard "
        "their inputs; attacks count such gradients as zero.",
    ),
    "saturated-loss": (
        "warning",
        "Use a loss that does not saturate (loss='dlr' or loss='margin'); the suite standard has one.",
    ),
    "black-box-beats-white-box": (
        "warning",
        "The gradients mislead: look for rounding, randomness or saturation in the model and attack a "
        "differentiable surrogate of it.",
    ),
    "search-beats-gradients": (
        "warning",
        "The gradients mislead here: look for rounding, saturation or a detached step in the model, and run again with "
        "a larger budget (--budget 10), under which the search goes on for longer.",
    ),
    "not-found": (
        "warning",
        "Give the attacks more steps or add others: without a budget almost every input has an adversarial one, and a "
        "sample without it counts as infinitely far.",
    ),
    "attacks-disagree": (
        "warning",
        "Give the attacks more steps or add others: where each one is far from the smallest distance for many samples, "
        "that is hardly the smallest there is.",
    ),
    "whole-range": (
        "warning",
        "Give eps in the unit of the inputs: 8/255 and not 8 for images in [0, 1].",
    ),
    "stage-skipped": (
        "warning",
        "Read the robust accuracy as that of the remaining stages only: with fewer attacks it can be far too high.",
    ),
    "queries-spent": (
        "warning",
        "Read the robust accuracy as an upper bound, or continue with --resume and a larger --total-queries.",
    ),
    "fallback": (
        "info",
        "Nothing to do: compare with runs that used the same fallback.",
    ),
    "damaged-shard": (
        "info",
        "Nothing to do: it was computed again. Check the disk if this repeats.",
    ),
}


@final
@dataclass(frozen=True, kw_only=True)
class Flag:
    """One remark about a run.

    Args:
        code: Names the check; a section of ``docs/checks.md`` explains it.
        severity: "error" when the numbers cannot be used, "warning" when they may mislead, "info" otherwise.
        message: What was found.
        cure: What to do about it.
    """

    code: str
    severity: Severity
    message: str
    cure: str

    @staticmethod
    def of(code: str, message: str) -> Flag:
        """The flag of a known check.

        Example:
            >>> Flag.of("softmax-outputs", "every row sums to 1.").severity
            'warning'
        """
        severity, cure = _KNOWN[code]
        return Flag(code=code, severity=severity, message=message, cure=cure)

    @property
    def link(self) -> str:
        """Where the check is explained."""
        return f"docs/checks.md#{self.code}"

    def record(self) -> FlagRecord:
        """As it is written to ``run.json``."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "cure": self.cure,
            "link": self.link,
        }
