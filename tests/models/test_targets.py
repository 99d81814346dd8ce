"""Functions, estimators and narrower views: what they answer, and what they refuse."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import assay
from assay.errors import AccessError, GrammarError, ModelError, SettingError
from assay.evaluation.prepare import digest
from assay.models import Estimator, Function, LabelsOnly, Rounded, ScoresOnly, TopK, load_model
from assay.models.limited import LimitedSpec
from assay.oracle import Access, granted_access


@pytest.fixture(scope="module")
def digits():
    return assay.load_data("digits", limit=400)


def rows(data):
    return data.x.flatten(1).numpy(), data.y.numpy()


@pytest.mark.parametrize("takes", ["numpy", "torch"])
def test_a_function_is_asked_in_its_own_arrays(takes):
    seen = []

    def call(x):
        seen.append(type(x))
        return x.reshape(len(x), -1)[:, :3] * 2

    x = torch.rand(4, 1, 2, 2, dtype=torch.float64)
    found = Function(call, takes=takes)(x)
    assert torch.equal(found, x.flatten(1)[:, :3] * 2)
    assert found.dtype == torch.float64
    assert seen == [np.ndarray if takes == "numpy" else torch.Tensor]


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_labels_of_a_function_are_int64(kind):
    model = Function(lambda x: (x.mean(axis=1) > 0.5).astype(kind), access="labels")
    assert granted_access(model) is Access.LABELS
    found = model(torch.tensor([[0.9], [0.1]]))
    assert found.tolist() == [1, 0]
    assert found.dtype == torch.int64


def test_a_function_that_answers_otherwise_is_named():
    x = torch.rand(3, 2)
    for answer, access, says in (
        (np.zeros(3), "labels", "one whole number"),
        (np.zeros((3, 1)), "scores", "two or more classes"),
        (np.zeros((2, 4)), "scores", "answered 3 inputs"),
        ("text", "scores", "no array of numbers"),
    ):
        with pytest.raises(ModelError, match=says):
            Function(lambda _, answer=answer: answer, access=access)(x)
    with pytest.raises(SettingError, match="'labels' or 'scores'"):
        Function(len, access="gradients")
    with pytest.raises(SettingError, match="'numpy' or 'torch'"):
        Function(len, takes="jax")


def test_no_gradient_is_given():
    x = torch.rand(2, 3, requires_grad=True)
    for model in (Function(lambda x: x), ScoresOnly(nn.Linear(3, 2)), TopK(nn.Linear(3, 4), 2)):
        with pytest.raises(AccessError, match="no gradients"):
            model(x)
        with torch.no_grad():
            assert not model(x).requires_grad


def test_scores_of_a_linear_estimator_are_its_decision_function(digits):
    x, y = rows(digits)
    fitted = LogisticRegression(max_iter=500).fit(x, y)
    model = Estimator(fitted)
    assert (model.method, model.access) == ("decision_function", Access.SCORES)
    np.testing.assert_allclose(model(digits.x).numpy(), fitted.decision_function(x), atol=1e-5)
    assert torch.equal(model(digits.x).argmax(1), torch.from_numpy(fitted.predict(x)))


def test_probabilities_come_as_logits(digits):
    x, y = rows(digits)
    fitted = DecisionTreeClassifier(max_depth=4, random_state=0).fit(x, y)
    model = Estimator(fitted)
    assert model.method == "predict_proba"
    found = model(digits.x)
    assert bool(found.isfinite().all())
    np.testing.assert_allclose(found.softmax(1).numpy(), fitted.predict_proba(x), atol=1e-6)


def test_two_classes_and_names_of_classes():
    x = np.array([[0.0], [0.2], [0.8], [1.0]])
    two = Estimator(RidgeClassifier().fit(x, ["cat", "cat", "dog", "dog"]))
    assert two(torch.from_numpy(x)).shape == (4, 2)
    assert two(torch.from_numpy(x)).argmax(1).tolist() == [0, 0, 1, 1]
    assert two.labels(torch.from_numpy(x)).tolist() == [0, 0, 1, 1]


def test_one_against_one_is_not_taken_for_scores_of_classes(digits):
    x, y = rows(digits)
    three = y < 3
    fitted = SVC(decision_function_shape="ovo").fit(x[three], y[three])  # three columns for three pairs
    model = Estimator(fitted)
    assert (model.method, model.access) == ("predict", Access.LABELS)
    assert torch.equal(model(digits.x[three]), torch.from_numpy(fitted.predict(x[three])))
    with pytest.raises(ModelError, match="cannot be asked by 'decision_function'"):
        Estimator(fitted, method="decision_function")


def test_what_is_no_fitted_classifier_is_refused():
    with pytest.raises(ModelError, match="no fitted classifier"):
        Estimator(LogisticRegression())
    fitted = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ModelError, match="rows of 4 features"):
        Estimator(fitted)(torch.rand(2, 1, 2, 2))


def test_a_file_is_read_only_when_it_is_trusted(tmp_path, digits):
    x, y = rows(digits)
    fitted = LogisticRegression(max_iter=500).fit(x, y)
    path = tmp_path / "m.joblib"
    joblib.dump(fitted, path)
    with pytest.raises(ModelError, match=r"runs whatever code.*trust=yes"):
        load_model(f"sklearn:{path}")
    model = load_model(f"sklearn:{path}?trust=yes&method=predict")
    assert model.access is Access.LABELS
    assert torch.equal(model(digits.x), torch.from_numpy(fitted.predict(x)))
    assert digest(model) != digest(load_model(f"sklearn:{path}?trust=yes"))
    path.write_text("text")
    with pytest.raises(ModelError, match="cannot read"):
        load_model(f"sklearn:{path}?trust=yes")


def test_estimators_by_name(tmp_path, monkeypatch):
    (tmp_path / "mytrees.py").write_text(
        "from sklearn.tree import DecisionTreeClassifier\n"
        "fitted = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])\n"
        "def build():\n    return fitted\n"
        "def function():\n    return lambda x: x\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("fitted", "build"):
        assert load_model(f"mytrees:{name}")(torch.tensor([[0.9], [0.1]])).argmax(1).tolist() == [1, 0]
    with pytest.raises(ModelError, match=r"assay\.models\.Function"):
        load_model("mytrees:function")


def test_labels_only_asks_for_the_decision_itself(digits):
    x, y = rows(digits)
    fitted = SVC().fit(x, y)
    assert torch.equal(LabelsOnly(Estimator(fitted))(digits.x), torch.from_numpy(fitted.predict(x)))
    linear = nn.Linear(64, 10)
    assert torch.equal(LabelsOnly(linear)(digits.x.flatten(1)), linear(digits.x.flatten(1)).argmax(1))


def test_top_k_shows_k_probabilities_and_spreads_the_rest():
    p = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.97, 0.01, 0.01, 0.01]], dtype=torch.float64)
    found = TopK(nn.Identity(), 2)(p.log()).exp()
    wanted = torch.tensor([[0.15, 0.4, 0.15, 0.3], [0.97, 0.01, 0.01, 0.01]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(TopK(nn.Identity(), 9)(p.log()).exp(), p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_views_keep_the_decision(dtype):
    logits = (torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) * 0.05).to(dtype)
    for view in (TopK(nn.Identity(), 1), TopK(nn.Identity(), 3), Rounded(nn.Identity(), 1), Rounded(nn.Identity(), 2)):
        found = view(logits)
        wanted = logits.log_softmax(1)
        same = found.argmax(1) == wanted.argmax(1)
        assert bool(same.all())
        assert bool(found.isfinite().all())
        assert found.dtype == dtype


def test_rounded_shows_so_many_decimals():
    p = torch.tensor([[0.507, 0.489, 0.004]], dtype=torch.float64)
    found = Rounded(nn.Identity(), 2)(p.log()).exp()
    torch.testing.assert_close(found, torch.tensor([[0.51, 0.49, 0.001]], dtype=torch.float64))
    flat = Rounded(nn.Identity(), 1)
    assert torch.equal(flat(p.log()), flat((p + torch.tensor([[1e-3, 0, -1e-3]])).log()))


def test_views_of_what_gives_labels_only_are_refused():
    labels = Function(lambda x: x, access="labels")
    for view in (lambda m: TopK(m, 2), lambda m: Rounded(m, 2), ScoresOnly):
        with pytest.raises(AccessError, match="gives labels only"):
            view(labels)
    for view in (lambda: TopK(labels, 0), lambda: Rounded(labels, 0), lambda: Rounded(labels, 2.0)):
        with pytest.raises(SettingError):
            view()


def test_views_are_written_as_models():
    model = load_model("TopK(Rounded('digits-mlp', decimals=2), 3)")
    inner = load_model("digits-mlp")
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(model(x), TopK(Rounded(inner, 2), 3)(x))
    assert granted_access(load_model("LabelsOnly('digits-mlp')")) is Access.LABELS
    specs = ("digits-mlp", "LabelsOnly('digits-mlp')", "TopK('digits-mlp', 3)", "TopK('digits-mlp', 4)")
    assert len({digest(load_model(spec)) for spec in specs}) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("TopK('digits-mlp')", "takes a MODEL in quotes, k"),
        ("TopK('digits-mlp', 3, 4)", "takes a MODEL in quotes, k"),
        ("TopK('digits-mlp', n=3)", "takes a MODEL in quotes, k"),
        ("LabelsOnly(3)", "a MODEL in quotes"),
        ("LabelsOnly(open('x'))", "a model is wrapped by"),
    ],
)
def test_views_that_cannot_be_read(text, says):
    with pytest.raises(GrammarError, match=says):
        LimitedSpec(text).parts()


def test_a_view_of_a_module_leaves_modes_and_device_alone():
    inner = nn.Sequential(nn.Linear(3, 4), nn.Dropout()).eval()
    inner[1].train()
    view = LabelsOnly(inner)
    x = torch.rand(4, 3)
    assay.attacks.Square  # noqa: B018  (loads the attacks)
    result = assay.attacks.HopSkipJump(threat=assay.L2(5.0), steps=2)(view, x, torch.zeros(4, dtype=torch.int64))
    assert result.backwards.tolist() == [0] * 4
    assert (inner.training, inner[1].training) == (False, True)
