"""A model behind HTTP: inputs are posted as JSON, and labels, scores or probabilities come back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from assay.errors import AccessError, ModelError, SettingError
from assay.importing import options
from assay.models.endpoint import Endpoint
from assay.models.target import Target, as_labels, as_scores, decisions, log_probabilities
from assay.oracle import Access

_KEYS = ("scores", "probabilities", "labels")
_OPTIONS: dict[str, type[int] | type[float]] = {
    "batch": int,
    "rate": float,
    "timeout": float,
    "retries": int,
    "backoff": float,
}


@final
class HttpModel(Target):
    """A server that is asked ``{"inputs": [...]}`` and answers with one key of three.

    ``{"scores": [[...], ...]}`` (logits), ``{"probabilities": [[...], ...]}`` (their logarithm is taken) or
    ``{"labels": [...]}``, one entry for each input, in their order. Numbers go out with all their digits.

    Args:
        url: ``http://host:port/path`` or https.
        access: "scores", or "labels" for a server that gives no more.
        batch: inputs in a request at most.
        rate: inputs a second at most; None for as fast as it goes.
        timeout: seconds to wait for an answer.
        retries: further tries after a failure that may pass (no connection, no answer in time, status 408, 425, 429,
            500, 502, 503, 504).
        backoff: seconds before the first of them, doubled before each further one.
        headers: sent with every request, such as an authorisation.

    Shapes:
        (b, *shape) -> (b, classes) scores in the type of x, or (b,) int64

    Raises:
        SettingError: a setting is out of range.
        ModelError: on a call, when the server refuses, is away after all tries, or answers in another form.
    """

    remote: ClassVar[bool] = True

    def __init__(
        self,
        url: str,
        *,
        access: Access | str = "scores",
        batch: int = 64,
        rate: float | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        backoff: float = 0.5,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(access)
        if batch < 1:
            raise SettingError(f"batch must be at least 1; got {batch}.")
        self.batch = batch
        self.endpoint = Endpoint(url, headers=headers, rate=rate, timeout=timeout, retries=retries, backoff=backoff)
        self.file_digest = hashlib.sha256(url.encode()).hexdigest()

    def answer(self, x: Tensor) -> Tensor:
        """Scores, or labels where that is the access."""
        return self.labels(x) if self.access is Access.LABELS else self._asked(x, labels=False)

    def labels(self, x: Tensor) -> Tensor:
        """Decisions, from whatever the server answers."""
        return self._asked(x, labels=True)

    def _asked(self, x: Tensor, *, labels: bool) -> Tensor:
        return torch.cat([self._request(part, labels=labels) for part in torch.split(x, self.batch)])

    def _request(self, x: Tensor, *, labels: bool) -> Tensor:
        body = json.dumps({"inputs": x.cpu().tolist()}, separators=(",", ":"), allow_nan=False).encode()
        key, values = _answered(self.endpoint.post(body, len(x)), self.endpoint.url)
        if key == "labels":
            if not labels:
                raise AccessError(
                    f"{self.endpoint.url} answers with labels and was to give scores: use --access labels "
                    "(assay.models.LabelsOnly, or access='labels')."
                )
            return as_labels(values, x, self.endpoint.url)
        found = torch.as_tensor(values, dtype=torch.float64)
        found = as_scores(log_probabilities(found) if key == "probabilities" else found, x, self.endpoint.url)
        return decisions(found) if labels else found


def _answered(content: bytes, url: str) -> tuple[str, Tensor]:
    """Which of the keys the server answered with, and its numbers."""
    try:
        answer: Any = json.loads(content)
        key = next(key for key in _KEYS if key in answer)
        return key, torch.tensor(answer[key], dtype=torch.int64 if key == "labels" and _whole(answer[key]) else None)
    except (ValueError, TypeError, StopIteration) as wrong:
        shown = content[:100].decode(errors="replace")
        raise ModelError(
            f"{url} answered {shown!r}; expected is a JSON object with 'scores', 'probabilities' or 'labels', one "
            "entry for each input."
        ) from wrong


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int) for value in values)


def read_http(spec: str) -> HttpModel:
    """``http://host:port/path``, how to ask it behind a ``#``: ``#batch=32&rate=100&timeout=10&retries=5&backoff=0.5``.

    Args:
        spec: the address; what is behind the ``#`` is not sent and has no influence on results.

    Raises:
        ModelError: an option is unknown or no number.
        SettingError: it is out of range.

    Example:
        >>> read_http("http://127.0.0.1:8000/predict#batch=8").batch
        8
    """
    url, _, tail = spec.partition("#")
    _, chosen = options(f"{url.replace('?', '')}?{tail}", _OPTIONS, ModelError)
    try:
        found: dict[str, Any] = {name: _OPTIONS[name](text) for name, text in chosen.items()}
    except ValueError as wrong:
        raise ModelError(f"the options of {spec!r} are numbers: {wrong}.") from wrong
    return HttpModel(url, **found)
