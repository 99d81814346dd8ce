"""The checks of the contract, by name, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from assay.testing.case import Case
from assay.testing.checks import counting, effects, independence, inputs, outcome

Check: TypeAlias = "Callable[[Case], None]"

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        outcome.settings_are_frozen,
        outcome.result_is_honest,
        outcome.targeted_result_is_honest,
        outcome.wins_beyond_the_exact_radius,
        outcome.never_wins_within_the_exact_radius,
        outcome.finds_the_smallest,
        outcome.cannot_change_a_constant_model,
        outcome.wrong_from_the_start_is_distance_zero,
        outcome.training_moves_are_allowed_and_help,
        independence.same_seed_same_result,
        independence.batches_and_order_do_not_matter,
        independence.targeted_batches_do_not_matter,
        effects.model_is_left_as_it_was,
        effects.frozen_modules_stay_frozen,
        effects.global_random_state_is_untouched,
        effects.inputs_are_not_modified,
        counting.counts_are_true,
        counting.known_clean_output_is_not_asked_again,
        counting.budgets_are_kept,
        counting.access_is_declared,
        inputs.types_and_device_are_kept,
        inputs.odd_shapes_and_class_numbers,
        inputs.values_at_the_bounds_can_move,
        inputs.other_bounds,
        inputs.one_budget_per_sample,
        inputs.zero_budget,
        inputs.no_budget,
    )
}

__all__ = ["CHECKS", "Check"]
