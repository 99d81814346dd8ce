"""Models and data that are wrong in one way each; the command line finds them as `wrong:NAME`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import assay


class Right(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = assay.load_model("digits-mlp")

    def forward(self, x):
        return self.net(x)


class Softmax(Right):
    def forward(self, x):
        return self.net(x).softmax(dim=1)


class NotANumber(Right):
    def forward(self, x):
        return self.net(x) * torch.nan


class NotANumberUnderAttack(Right):
    """The root of a negative number, which only changed inputs lead to."""

    def forward(self, x):
        grid = (x * 16).round()
        return self.net(x) + (1e-9 - (x * 16 - grid).abs().flatten(1).amax(dim=1, keepdim=True)).sqrt()


class Constant(Right):
    def forward(self, x):
        return self.net(x * 0)


class Rounding(Right):
    def forward(self, x):
        return self.net((x * 16).round() / 16)


class Detached(Right):
    def forward(self, x):
        return self.net(x.detach())


class Noisy(Right):
    def forward(self, x):
        return self.net(x + 0.3 * torch.randn_like(x))


class OneValue(Right):
    def forward(self, x):
        return self.net(x)[:, :1]


class TwoClasses(Right):
    def forward(self, x):
        return self.net(x)[:, :2]


class WithBatchNorm(Right):
    """A batch norm of the kind that always uses the statistics of its batch, unless `running`."""

    def __init__(self, running=False):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=running)

    def forward(self, x):
        return self.net(self.norm(x))


class Watched(Right):
    """Notes each call in a file, so that it can be stopped at a known moment, and fails when told to."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        if note := os.environ.get("MISUSE_CALLS"):
            with Path(note).open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.02)
        if self.calls > int(os.environ.get("MISUSE_FAILS_AFTER", "1000000")):
            raise RuntimeError("the card has fallen off the bus")
        return self.net(x)


def two_classes():
    x, y, _ = assay.load_data("digits").batch(0, 400)
    return x[y < 2][:20], y[y < 2][:20]


def integer_images():
    x, y, _ = assay.load_data("digits").batch(0, 20)
    return (x * 255).to(torch.uint8), y


def write_files(folder: Path) -> None:
    """Archives, images and model files that are wrong in one way each."""
    x, y, _ = (part.numpy() for part in assay.load_data("digits").batch(0, 40))
    holes = x.copy()
    holes[3, 0, 2] = np.nan
    archives = {
        "good": {"x": x, "y": y},
        "range255": {"x": x * 255, "y": y},
        "normalised": {"x": (x - 0.5) / 0.5, "y": y},
        "int64": {"x": (x * 255).astype(np.int64), "y": y},
        "nan": {"x": holes, "y": y},
        "from1": {"x": x, "y": y + 1},
        "negative": {"x": x, "y": y - 1},
        "floatlabels": {"x": x, "y": y.astype(np.float32)},
        "onehot": {"x": x, "y": np.eye(10, dtype=np.int64)[y]},
        "fewer": {"x": x, "y": y[:30]},
        "nokey": {"images": x, "labels": y},
        "empty": {"x": x[:0], "y": y[:0]},
    }
    for name, arrays in archives.items():
        np.savez(folder / f"{name}.npz", **arrays)
    whole = (folder / "good.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.npz").write_text("label,pixel0,pixel1\n5,0,0\n")
    torch.save(assay.load_model("digits-mlp").state_dict(), folder / "state.pt")
    torch.save(Right(), folder / "pickled.pt")
    (folder / "text.onnx").write_text("not a network")
    (folder / "notes.txt").write_text("a plain file\n")
    (folder / "suite.toml").write_text('name = "mine"\nversion = 1\n[[stage]\nname = "pgd"\n')


def write_images(folder: Path) -> None:
    """Forty images of digits in class folders."""
    from PIL import Image

    x, y, _ = assay.load_data("digits").batch(0, 40)
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        (folder / str(int(label))).mkdir(parents=True, exist_ok=True)
        pixels = (image[0] * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / str(int(label)) / f"{number:02d}.png")


def write_onnx(folder: Path) -> None:
    """The digits network as ONNX; needs the package onnx."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = {name.replace(".", "_"): value for name, value in assay.load_model("digits-mlp").state_dict().items()}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "hidden_weight", "hidden_bias"], ["before"], transB=1),
        helper.make_node("Relu", ["before"], ["after"]),
        helper.make_node("Gemm", ["after", "head_weight", "head_bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 10])],
        [numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
