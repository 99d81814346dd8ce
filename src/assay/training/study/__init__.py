"""The trade-off study: accuracy and robustness over the training eps and the number of samples, for several recipes."""

from __future__ import annotations

from assay.training.study.study import Study, study

__all__ = ["Study", "study"]
