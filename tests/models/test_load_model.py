"""Every form of MODEL, and what a user sees when one cannot be loaded."""

import io
import json
import os
import pickle
import sys
import warnings
import zipfile
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from assay.errors import MissingExtraError, ModelError
from assay.evaluation.prepare import digest
from assay.models import load_model
from assay.models.adapters import in_batches

MODULE = """
from torch import nn
from assay.models.networks import DigitsMLP

ready = DigitsMLP()
number = 3
def make(): return DigitsMLP().train()
def broken(): raise RuntimeError("no such checkpoint")
def leaving(): raise SystemExit(0)
def text(): return "digits-mlp"
class Holder:
    @staticmethod
    def inner(): return DigitsMLP()
"""


@pytest.fixture
def digits():
    return load_model("digits-mlp")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def gradient(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).square().sum(), x)[0]


def assert_same(model, reference, batches=(1, 3, 8)):
    """Outputs and input gradients agree for several batch sizes."""
    for size in batches:
        x = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(size))
        torch.testing.assert_close(model(x), reference(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(gradient(model, x), gradient(reference, x), rtol=1e-3, atol=1e-4)


def save_exported(model, path, *, dynamic):
    shapes = ({0: torch.export.Dim("b")},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (torch.rand(3, 1, 8, 8),), dynamic_shapes=shapes), path)
    return path


def save_torchscript(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, torch.rand(2, 1, 8, 8)), path)
    return path


@pytest.mark.parametrize("dynamic", [True, False])
def test_exported_program(digits, tmp_path, dynamic):
    model = load_model(str(save_exported(digits, tmp_path / "m.pt2", dynamic=dynamic)))
    assert_same(model, digits)
    assert not any(module.training for module in model.modules())
    model.train().eval()
    assert model.training is False


def test_exported_program_of_two_inputs(tmp_path):
    class Two(nn.Module):
        def forward(self, x, scale):
            return x * scale

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Two(), (torch.rand(2, 3), torch.rand(2, 3)))
        torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"takes 2 inputs \(x, scale\)"):
        load_model(str(tmp_path / "m.pt2"))


class Payload:
    """Unpickling it makes the directory that it names."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("record", ["sample_inputs", "weights", "opaque"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_pickle_in_an_exported_program_is_not_run(digits, tmp_path, record):
    program, changed, mark = save_exported(digits, tmp_path / "m.pt2", dynamic=True), tmp_path / "n.pt2", tmp_path / "x"
    saved = io.BytesIO()
    torch.save(Payload(mark), saved)
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if record == "sample_inputs" and "sample_inputs" in entry.filename:
                content = saved.getvalue()
            if record == "weights" and entry.filename.endswith("weight_0"):
                content = saved.getvalue()
            if record == "weights" and entry.filename.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            if record == "opaque" and entry.filename.endswith("constants_config.json"):
                meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
                content = json.dumps({"config": {"c": meta}}).encode()
                new.writestr(
                    entry.filename.replace("model_constants_config.json", "opaque_obj_0"), pickle.dumps(Payload(mark))
                )
            new.writestr(entry.filename, content)
    forced = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    with pytest.raises(ModelError, match="holds pickled Python objects"):
        load_model(str(changed))
    assert not mark.exists()
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == forced


@pytest.mark.parametrize("name", ["m.pt", "m.ts", "m.torchscript", "m.PT"])
def test_torchscript(digits, tmp_path, name):
    model = load_model(str(save_torchscript(digits, tmp_path / name)))
    assert_same(model, digits)
    assert not model.training


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda model: model.state_dict(), r"holds weights \(hidden.weight, hidden.bias, head.weight"),
        (lambda model: model, "pickled Python objects, which are not loaded"),
    ],
)
def test_a_file_without_a_program_says_what_it_holds(digits, tmp_path, content, words):
    torch.save(content(digits), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=words) as error:
        load_model(str(tmp_path / "m.pt"))
    assert "package.module:function" in str(error.value)
    assert "torch.export.save" in str(error.value)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.pt2", "m.onnx", "m.safetensors"])
def test_broken_and_absent_files_name_the_path(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ModelError, match=rf"no file .*{name}"):
        load_model(str(path))
    path.write_bytes(b"these are no weights")
    with pytest.raises(ModelError, match=name):
        load_model(str(path))


def test_a_truncated_torchscript_file(digits, tmp_path):
    path = save_torchscript(digits, tmp_path / "m.pt")
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ModelError, match="neither TorchScript nor a file of weights"):
        load_model(str(path))


@pytest.mark.parametrize("save", [lambda m, p: save_exported(m, p, dynamic=True), save_torchscript])
def test_programs_with_the_same_weights_are_told_apart(tmp_path, save):
    class Doubled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return self.factor * x.flatten(1)

    found = set()
    for i, factor in enumerate((2.0, 3.0)):
        path = tmp_path / f"{i}.pt2" if save is not save_torchscript else tmp_path / f"{i}.ts"
        found.add(digest(load_model(str(save(Doubled(factor), path)))))
        again = digest(load_model(str(path)))
        assert again in found
    assert len(found) == 2


@pytest.mark.parametrize("name", ["make", "ready", "Holder.inner"])
def test_a_callable_in_the_current_directory(here, name):
    (here / "my_model_module.py").write_text(MODULE, encoding="utf-8")
    model = load_model(f"my_model_module:{name}")
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert not model.training


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("my_model_module:broken", "RuntimeError: no such checkpoint"),
        ("my_model_module:leaving", "SystemExit: 0"),
        ("my_leaving_module:make", "importing 'my_leaving_module' failed: SystemExit"),
        ("my_model_module:text", "returned a str"),
        ("my_model_module:number", "is a int; name a function"),
        ("my_model_module:mak", "Did you mean 'make'"),
        ("my_modul:make", "no module named 'my_modul'"),
        ("my_syntax_module:make", "SyntaxError"),
        ("my_import_module:make", "importing 'my_import_module' failed: No module named 'absent_thing'"),
    ],
)
def test_callables_that_fail(here, spec, words):
    (here / "my_model_module.py").write_text(MODULE, encoding="utf-8")
    (here / "my_syntax_module.py").write_text("def make(:", encoding="utf-8")
    (here / "my_leaving_module.py").write_text("raise SystemExit(0)", encoding="utf-8")
    (here / "my_import_module.py").write_text("import absent_thing", encoding="utf-8")
    with pytest.raises(ModelError, match=words):
        load_model(spec)


@pytest.mark.parametrize("spec", ["fashion-cn", "", "no/such/file", "no/such:thing"])
def test_an_unknown_name_is_answered_with_what_exists(spec):
    with pytest.raises(ModelError) as error:
        load_model(spec)
    for word in ("fashion-cnn-pgd", "package.module:callable", ".pt2", ".onnx", "torchvision:", "timm:", "hf:"):
        assert word in str(error.value)
    if spec == "fashion-cn":
        assert "Did you mean 'fashion-cnn'" in str(error.value)


def test_the_model_goes_to_the_device():
    assert next(load_model("digits-mlp", device="meta").parameters()).device.type == "meta"


def test_in_batches_keeps_rows_and_gradients():
    x = torch.arange(5.0, requires_grad=True)
    calls = []

    def call(rows):
        calls.append(len(rows))
        return rows * 2

    y = in_batches(call, x, 2)
    assert y.tolist() == [0, 2, 4, 6, 8]
    assert calls == [2, 2, 2]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [2] * 5


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("torchvision:resnet18", "torchvision", "torchvision"),
        ("timm:resnet18", "timm", "timm"),
        ("hf:user/net", "transformers", "hf"),
    ],
)
def test_hubs_name_the_extra_they_need(spec, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'assay\[{extra}\]'"):
        load_model(spec)


def test_a_hub_built_for_another_torch_says_why_it_cannot_be_used(here):
    (here / "timm.py").write_text("raise RuntimeError('operator does not exist')", encoding="utf-8")
    sys.path.insert(0, str(here))
    with pytest.raises(MissingExtraError, match="RuntimeError: operator does not exist"):
        load_model("timm:resnet18")


class Recorder(nn.Module):
    """Answers with its input, so that a test sees what the network would get."""

    def forward(self, x):
        return x


def expect_normalized(model):
    x = torch.rand(2, 3, 4, 4)
    expected = (x - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.25, 1.0])[:, None, None]
    torch.testing.assert_close(model(x), expected)
    assert not model.training


MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)


def test_torchvision_models_get_their_normalisation(monkeypatch):
    weights = SimpleNamespace(transforms=lambda: SimpleNamespace(mean=MEAN, std=STD))
    boxes = SimpleNamespace(transforms=SimpleNamespace)
    module = ModuleType("torchvision")
    module.models = SimpleNamespace(
        list_models=lambda: ["resnet18"],
        get_model_weights=lambda name: SimpleNamespace(__members__={"DEFAULT": weights, "BOXES": boxes}),
        get_model=lambda name, weights: Recorder(),
    )
    monkeypatch.setitem(sys.modules, "torchvision", module)
    expect_normalized(load_model("torchvision:resnet18"))
    with pytest.raises(ModelError, match="Did you mean 'resnet18'"):
        load_model("torchvision:resnet8")
    with pytest.raises(ModelError, match="no weights 'V9' for resnet18; there are DEFAULT, BOXES"):
        load_model("torchvision:resnet18?weights=V9")
    with pytest.raises(ModelError, match="does not say how its inputs are normalised"):
        load_model("torchvision:resnet18?weights=BOXES")


def test_timm_models_get_their_normalisation(monkeypatch):
    def create_model(name, pretrained):
        if "missing" in name:
            raise RuntimeError("no weights for this tag")
        model = Recorder()
        model.pretrained_cfg = {"mean": MEAN, "std": STD}
        return model

    module = ModuleType("timm")
    module.list_models = lambda: ["resnet18"]
    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)
    expect_normalized(load_model("timm:resnet18.a1_in1k"))
    with pytest.raises(ModelError, match="Did you mean 'resnet18'"):
        load_model("timm:resnet8")
    with pytest.raises(ModelError, match="no weights for this tag"):
        load_model("timm:resnet18.missing")


def test_hf_models_get_their_normalisation_and_answer_with_logits(monkeypatch):
    class Classifier(nn.Module):
        def forward(self, x):
            return SimpleNamespace(logits=x)

    def pretrained(made):
        def load(name):
            if name != "user/net":
                raise OSError("not on the hub")
            return made

        return SimpleNamespace(from_pretrained=load)

    module = ModuleType("transformers")
    module.AutoModelForImageClassification = pretrained(Classifier())
    module.AutoImageProcessor = pretrained(SimpleNamespace(do_normalize=True, image_mean=MEAN, image_std=STD))
    monkeypatch.setitem(sys.modules, "transformers", module)
    expect_normalized(load_model("hf:user/net"))
    with pytest.raises(ModelError, match="not on the hub"):
        load_model("hf:user/absent")
    module.AutoImageProcessor = pretrained(SimpleNamespace(do_normalize=False))
    x = torch.rand(1, 3, 2, 2)
    assert torch.equal(load_model("hf:user/net")(x), x)


def test_load_model_is_public():
    import assay

    assert assay.load_model is load_model
