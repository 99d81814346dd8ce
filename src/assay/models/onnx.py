"""ONNX files as targets that answer with scores or labels, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from assay.errors import ModelError
from assay.importing import optional
from assay.models.adapters import in_batches
from assay.models.files import file_digest
from assay.models.target import Target
from assay.oracle import Access

_INPUTS = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}
_LABELS = ("tensor(int64)", "tensor(int32)")


@final
class OnnxModel(Target):
    """An ONNX file: its scores may be asked for, its gradients may not.

    The input is converted to the type the file asks for and the output back to the type of x. A file with a fixed
    batch size is asked batch by batch. One that gives whole numbers only, one for each input, grants labels.

    Args:
        path: the file.
        device: "cuda" runs on the graphics card where ONNX Runtime was built for it.

    Shapes:
        as in the file

    Raises:
        MissingExtraError: ``onnxruntime`` is not installed.
        ModelError: the file cannot be read, or does not take one floating input and give scores or labels.
    """

    def __init__(self, path: Path, device: str | torch.device = "cpu") -> None:
        session = _open(path, torch.device(device))
        scores = [o.name for o in session.get_outputs() if o.type in _INPUTS]
        labels = [o.name for o in session.get_outputs() if o.type in _LABELS and len(o.shape) == 1]
        super().__init__(Access.SCORES if scores or not labels else Access.LABELS)
        self.session = session
        self.file_digest = file_digest(path)  # the weights are out of reach
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _INPUTS:
            found = ", ".join(f"{i.name}: {i.type}" for i in inputs)
            raise ModelError(f"{path} takes ({found}); one input of floating point is needed. Export it so.")
        if not scores and not labels:
            found = ", ".join(f"{o.name}: {o.type}" for o in session.get_outputs())
            raise ModelError(
                f"{path} gives ({found}); an output of floating point, the logits, or one whole number for each input, "
                "its label, is needed."
            )
        self.input, self.output = inputs[0].name, (scores or labels)[0]
        self.dtype = _INPUTS[inputs[0].type]
        self.batch = inputs[0].shape[0] if inputs[0].shape and isinstance(inputs[0].shape[0], int) else None

    def answer(self, x: Tensor) -> Tensor:
        """Scores of a batch, in the type of x, or its labels.

        Args:
            x: inputs, on any device.

        Raises:
            ModelError: ONNX Runtime refuses the input.
        """
        rows = x.to("cpu", self.dtype)
        found = self._ask(rows) if self.batch is None else in_batches(self._ask, rows, self.batch)
        return found.to(x.device, torch.int64 if self.access is Access.LABELS else x.dtype)

    def _ask(self, rows: Tensor) -> Tensor:
        try:
            scores = self.session.run([self.output], {self.input: rows.numpy()})[0]
        except Exception as refused:
            raise ModelError(f"ONNX Runtime refused an input of shape {tuple(rows.shape)}: {refused}") from refused
        return torch.from_numpy(scores)


def _open(path: Path, device: torch.device) -> Any:
    runtime = optional("onnxruntime", "onnx", f"MODEL {str(path)!r}")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = torch.get_num_threads()
    wanted = ["CPUExecutionProvider"] if device.type == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [provider for provider in wanted if provider in runtime.get_available_providers()]
    try:
        return runtime.InferenceSession(str(path), settings, providers=providers)
    except Exception as unreadable:
        raise ModelError(
            f"cannot read {path} as an ONNX model: {unreadable} It was cut short or is another kind of file; write it "
            "with torch.onnx.export."
        ) from unreadable
