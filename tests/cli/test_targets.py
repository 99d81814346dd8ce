"""Targets without gradients from the command line: scikit-learn, ONNX, HTTP, and views of any model."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import joblib
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from sklearn.linear_model import RidgeClassifier

from assay import load_data
from assay.models import load_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_model.py"
ON_DIGITS = ("--data", "digits", "--limit", "8")
SCORES = (*ON_DIGITS, "--attack", "Square(queries=60)", "--threat", "linf:0.2")
LABELS = (*ON_DIGITS, "--attack", "HopSkipJump(steps=2)", "--threat", "l2:2", "--max-queries", "150")


@pytest.fixture(scope="module")
def serve():
    """The example's server in this process: `serve(answers, busy_every)` gives it."""
    spec = importlib.util.spec_from_file_location("serve_model", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    running = []

    def start(answers, busy_every=0):
        server = example.Server(("127.0.0.1", 0), load_model("digits-mlp"), answers, busy_every)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        server.url = f"http://127.0.0.1:{server.server_address[1]}/predict"
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """A linear classifier of the digits that gives logits, and one that gives its label alone."""
    model = load_model("digits-mlp")
    weights = {name.replace(".", "_"): value.numpy() for name, value in model.state_dict().items()}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "hidden_weight", "hidden_bias"], ["pre"], transB=1),
        helper.make_node("Relu", ["pre"], ["post"]),
        helper.make_node("Gemm", ["post", "head_weight", "head_bias"], ["logits"], transB=1),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 1, 8, 8])]
    outputs = {
        "scores": helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 10]),
        "labels": helper.make_tensor_value_info("label", TensorProto.INT64, ["b"]),
    }
    folder = tmp_path_factory.mktemp("onnx")
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    for name, output in outputs.items():
        graph = helper.make_graph(nodes, name, inputs, [output], constants)
        save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / f"{name}.onnx"
        )
    return lambda name: str(folder / f"{name}.onnx")


def attacked(assay, model, *options):
    found = assay("attack", model, *options, "--json", "-q")
    assert found.code == 0, found.err
    assert found.json["succeeded"] > 0
    assert found.json["backwards"] == 0
    return found.json


def same(first, second):
    """Everything but names and seconds."""
    return all(first[key] == second[key] for key in first if key not in ("model", "seconds"))


def test_onnx_answers_as_the_network_it_came_from(assay, onnx_file):
    reference = attacked(assay, "digits-mlp", *SCORES)
    assert same(attacked(assay, onnx_file("scores"), *SCORES), reference)
    reference = attacked(assay, "digits-mlp", *LABELS)
    assert same(attacked(assay, onnx_file("labels"), *LABELS), reference)
    found = assay("attack", onnx_file("labels"), *SCORES)
    assert found.code == 2
    assert "the model grants labels" in found.said


def test_a_server_answers_as_the_model_behind_it(assay, serve):
    server = serve("scores", busy_every=3)
    found = attacked(assay, f"{server.url}#backoff=0&batch=50", *SCORES)
    assert same(found, attacked(assay, "digits-mlp", *SCORES))
    assert found["model"] == server.url
    assert server.inputs == round(found["forwards"] * 8) + 1  # one to try whether model and data go together


def test_a_server_that_gives_labels(assay, serve):
    server = serve("labels")
    found = attacked(assay, server.url, *LABELS, "--access", "labels")
    assert same(found, attacked(assay, "digits-mlp", *LABELS, "--access", "labels"))
    found = assay("attack", server.url, *SCORES)
    assert found.code == 2
    assert "--access labels" in found.said


def test_a_server_that_gives_probabilities(assay, serve):
    found = attacked(assay, serve("probabilities").url, *SCORES)
    assert found["succeeded"] == attacked(assay, "digits-mlp", *SCORES)["succeeded"]


def test_scikit_learn(assay, tmp_path):
    data = load_data("digits")
    fitted = RidgeClassifier().fit(data.x[400:].flatten(1).numpy(), data.y[400:].numpy())
    joblib.dump(fitted, tmp_path / "m.joblib")
    model = f"sklearn:{tmp_path / 'm.joblib'}?trust=yes"
    found = attacked(assay, model, *SCORES)
    clean = (torch.from_numpy(fitted.predict(data.x[:8].flatten(1).numpy())) == data.y[:8]).double().mean()
    assert found["clean_accuracy"] == float(clean)
    attacked(assay, model, *LABELS, "--access", "labels")
    refused = assay("attack", model.removesuffix("?trust=yes"), *SCORES)
    assert refused.code == 2
    assert "runs whatever code" in refused.said


def test_views_are_recorded_and_repeated(assay, tmp_path):
    options = ("--top-k", "2", "--decimals", "2")
    found = assay("evaluate", "digits-mlp", *SCORES, *options, "--out", tmp_path / "run", "-q")
    assert found.code == 0, found.err
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["model"] == "TopK(Rounded('digits-mlp', 2), 2)"
    again = assay("evaluate", settings["model"], *SCORES, "--out", tmp_path / "run", "--resume", "-q")
    assert again.code == 0, again.err
    other = assay("evaluate", "digits-mlp", *SCORES, "--top-k", "2", "--out", tmp_path / "run", "--resume", "-q")
    assert other.code == 3
    assert "other settings" in other.said


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--access", "labels"), 2, "grants labels"),
        (("--access", "labels", "--top-k", "3"), 2, "labels come without scores"),
        (("--attack", "pgd", "--access", "scores"), 2, "the model grants scores"),
        (("--access", "gradients"), 2, "gradients"),
        (("--decimals", "0"), 2, "decimals"),
        (("--top-k", "0"), 2, "top-k"),
    ],
)
def test_what_a_view_hides_cannot_be_asked(assay, refused, options, code, says):
    refused(("attack", "digits-mlp", *SCORES, *options), code, says)


SAMPLES = ("--data", "digits", "--limit", "16")
SEARCH = ("--threat", "linf:0.15", "--attack", "Square(queries=80)")
BUDGETED = (*SAMPLES, "--chunk", "8", *SEARCH)


def results(folder):
    """What a run found, without its times and counts of all attempts."""
    run = json.loads((folder / "run.json").read_text())
    return [{**stage, "seconds": 0} for stage in run["results"]["stages"]], run["results"]["robust_accuracy"]


def serving(port=0):
    """The example as a process of its own: it, and its address."""
    command = [sys.executable, str(EXAMPLE), "digits-mlp", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[0]


def test_a_server_that_is_killed_in_the_middle_costs_nothing(assay, tmp_path):
    whole = assay("evaluate", "digits-mlp", "--access", "scores", *BUDGETED, "--out", tmp_path / "whole", "-q")
    assert whole.code == 0, whole.err
    process, address = serving()
    status = address.removesuffix("predict")
    asked = 0

    def kill_in_the_middle():
        nonlocal asked
        while asked < 400:
            time.sleep(0.005)
            with urllib.request.urlopen(status) as answer:
                asked = json.load(answer)["inputs"]
        process.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    model = (f"{address}#retries=0&batch=8", *BUDGETED, "--out", tmp_path / "run", "-q")
    found = assay("evaluate", *model)
    killer.join()
    process.wait()
    process.stdout.close()
    assert found.code == 3
    assert "gave no answer" in found.said
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["state"] == "interrupted"
    before = state["queries"]["spent"]

    process, again = serving(address.split(":")[2].split("/")[0])
    try:
        assert again == address
        found = assay("evaluate", *model, "--resume")
        with urllib.request.urlopen(status) as answer:
            after = json.load(answer)["inputs"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert found.code == 0, found.err
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    unbroken = json.loads((tmp_path / "whole" / "run.json").read_text())["queries"]["spent"]
    looks = 3 * 16  # the checks before the first attack
    assert 300 < before < unbroken
    assert before + after <= unbroken + looks


def test_a_total_from_the_command_line(assay, tmp_path):
    options = ("digits-mlp", "--access", "scores", *BUDGETED)
    assert assay("evaluate", *options, "--out", tmp_path / "whole", "-q").code == 0
    found = assay("evaluate", *options, "--out", tmp_path / "run", "--total-queries", 300, "--json")
    assert found.code == 0, found.err
    assert "Continue with --resume and a larger total" in found.said
    assert "queries in the median of its successes" in found.said
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["state"], run["queries"]["total"]) == ("stopped", 300)
    assert run["queries"]["spent"] <= 300
    assert found.json["flags"][-1]["code"] == "queries-spent"
    more = assay("evaluate", *options, "--out", tmp_path / "run", "--total-queries", 30000, "--resume", "-q")
    assert more.code == 0, more.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "done"
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_total_is_what_the_server_counts(assay, serve, tmp_path):
    """Looks at the first samples included, and however often the run goes on."""
    server = serve("scores")
    found = assay("attack", server.url, *SAMPLES, *SEARCH, "--total-queries", 150, "--json", "-q")
    assert 100 < server.inputs == found.json["asked"] <= 150
    server.inputs = 0
    total = (server.url, *BUDGETED, "--out", tmp_path / "run", "--total-queries", 300, "-q")
    assert assay("evaluate", *total).code == 0
    for _ in range(2):
        assay("evaluate", *total, "--resume")
        spent = json.loads((tmp_path / "run" / "run.json").read_text())["queries"]["spent"]
        assert 200 < server.inputs == spent <= 300


def test_a_substitute_of_a_server_whose_budget_ends_with_a_round(assay, serve, tmp_path):
    server = serve("labels")
    options = ("--data", "digits", "--limit", "100", "--max-queries", "100", "--held-out", "20", "--set", "initial=20")
    found = assay("substitute", server.url, *options, "--out", tmp_path / "s")
    assert found.code == 0, found.err
    assert server.inputs == 100
    won = assay("attack", server.url, "--access", "labels", *ON_DIGITS, "--attack", "transfer", "--threat", "linf:0.3",
                "--set", f"surrogate={str(tmp_path / 's')!r}", "--json", "-q")  # fmt: skip
    assert won.json["succeeded"] > 0


def test_the_example_names_inputs_that_its_model_does_not_take(serve):
    request = urllib.request.Request(serve("scores").url, data=b'{"inputs": []}')
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_budgets_of_one_attack(assay):
    options = ("attack", "digits-mlp", *SAMPLES, *SEARCH, "--json")
    whole = assay(*options).json
    assert whole["queries"]["at"]["queries"] == [100, 1000, 10000]
    assert (whole["stopped"], whole["asked"]) == (
        False,
        1 + round(16 * whole["forwards"]),
    )  # with the look at the first
    few = assay(*options, "--max-queries", 20).json
    assert 0 < few["succeeded"] < whole["succeeded"]
    assert few["queries"]["at"]["success"] == [None, None, None]
    assert few["asked"] <= 20 * 16
    stopped = assay(*options, "--total-queries", 200, "--batch", 8)
    assert "would exceed --total-queries" in stopped.said
    assert stopped.json["stopped"]
    assert stopped.json["asked"] <= 200
    assert stopped.json["samples"] == 8
    assert assay(*options, "--total-queries", 3).code == 2


def test_the_suite_for_models_without_gradients(assay, onnx_file):
    options = ("--data", "digits", "--limit", "4", "--threat", "l2:3", "--max-queries", "60", "--json", "-q")
    found = assay("evaluate", onnx_file("scores"), *options, "--suite", "black-box").json
    assert [stage["name"] for stage in found["stages"]] == ["square", "geoda", "hop-skip-jump"]
    found = assay("evaluate", onnx_file("labels"), *options, "--suite", "black-box").json
    assert [stage["name"] for stage in found["stages"]] == ["geoda", "hop-skip-jump"]
    refused = assay("evaluate", onnx_file("labels"), *options)
    assert refused.code == 2
    assert "the suite black-box" in refused.said
