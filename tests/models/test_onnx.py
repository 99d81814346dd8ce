"""An ONNX file answers with the scores of the network it came from, and with nothing more."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import assay
from assay.errors import AccessError, MissingExtraError, ModelError
from assay.evaluation.prepare import digest
from assay.models import load_model
from assay.oracle import Access

NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}


def save_mlp(path, *, batch="b", kind=TensorProto.FLOAT, extra_input=False, label_first=False):
    """The digits network written as ONNX by hand, in any of the variants that files come in."""
    model = load_model("digits-mlp")
    weights = {key.replace(".", "_"): value.numpy().astype(NUMPY[kind]) for key, value in model.state_dict().items()}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "hidden_weight", "hidden_bias"], ["pre"], transB=1),
        helper.make_node("Relu", ["pre"], ["post"]),
        helper.make_node("Gemm", ["post", "head_weight", "head_bias"], ["logits"], transB=1),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, [batch, 1, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", kind, [batch, 10])]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("scale", kind, [1]))
        nodes.append(helper.make_node("Mul", ["logits", "scale"], ["scaled"]))
    if label_first:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, [batch]))
    constants = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, "digits", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    onnx.save(made, path)
    return str(path)


@pytest.mark.parametrize("variant", [{}, {"batch": 1}, {"batch": 4}, {"label_first": True}])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_scores_equal_those_of_the_network(tmp_path, variant, size):
    adapter = load_model(save_mlp(tmp_path / "m.onnx", **variant))
    x = torch.rand(size, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(adapter(x), load_model("digits-mlp")(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "atol"), [(TensorProto.DOUBLE, 1e-5), (TensorProto.FLOAT16, 0.05)])
def test_the_input_type_is_taken_from_the_file(tmp_path, kind, atol):
    adapter = load_model(save_mlp(tmp_path / "m.onnx", kind=kind))
    x = torch.rand(3, 1, 8, 8)
    scores = adapter(x)
    assert scores.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(scores, load_model("digits-mlp")(x), rtol=0, atol=atol)
    assert adapter(x.double()).dtype == torch.float64


def test_a_file_that_is_no_onnx(tmp_path):
    (tmp_path / "m.onnx").write_text("text")
    with pytest.raises(ModelError, match=r"cannot read .*m\.onnx.*torch\.onnx\.export"):
        load_model(str(tmp_path / "m.onnx"))


def test_no_gradients(tmp_path):
    adapter = load_model(save_mlp(tmp_path / "m.onnx"))
    assert adapter.access is Access.SCORES
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    with pytest.raises(AccessError, match="scores, no gradients"):
        adapter(x)
    with torch.no_grad():
        assert not adapter(x).requires_grad
    y = adapter(x.detach()).argmax(1)
    with pytest.raises(AccessError):
        assay.attacks.PGD(threat=assay.Linf(0.1), steps=2)(adapter, x.detach(), y)


def test_an_attack_by_scores_succeeds(tmp_path):
    adapter = load_model(save_mlp(tmp_path / "m.onnx", batch=4))
    data = assay.load_data("digits", limit=10)
    result = assay.attacks.Square(threat=assay.Linf(0.3), queries=200)(adapter, data.x, data.y)
    assert result.success.float().mean() > 0.5
    with torch.no_grad():
        wrong = adapter(result.x_adv).argmax(1) != data.y
    assert torch.equal(wrong, result.success)


def test_the_digest_of_a_run_is_that_of_the_file(tmp_path):
    first, second = save_mlp(tmp_path / "a.onnx"), save_mlp(tmp_path / "b.onnx", batch=4)
    digests = [digest(load_model(path)) for path in (first, second)]
    assert digests[0] != digests[1]
    assert digests[0] == digest(load_model(first))
    assert digest(torch.nn.Sequential(load_model(first))) != digest(torch.nn.Sequential(load_model(second)))


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(ModelError, match=r"takes \(x: tensor\(float\), scale: tensor\(float\)\)"):
        load_model(save_mlp(tmp_path / "two.onnx", extra_input=True))
    adapter = load_model(save_mlp(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"refused an input of shape \(2, 3, 8, 8\)"):
        adapter(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize(("given", "words"), [(TensorProto.UINT8, "takes"), (TensorProto.FLOAT, "gives")])
def test_integer_inputs_and_outputs_are_refused(tmp_path, given, words):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)]
    inputs = [helper.make_tensor_value_info("x", given, ["b", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT64, ["b", 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=words):
        load_model(str(tmp_path / "m.onnx"))


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    path = save_mlp(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'assay\[onnx\]'"):
        load_model(path)
