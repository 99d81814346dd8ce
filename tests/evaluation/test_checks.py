from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

import assay
from assay.attacks import APGD, FGSM, Relay, Square
from assay.errors import InputError, ModelError
from assay.evaluation import checks
from assay.evaluation.flags import _KNOWN, Flag
from assay.evaluation.merge import Table
from assay.evaluation.suites import load_suite

LINF = assay.Linf(0.02)
DOCS = Path(__file__).parents[2] / "docs"


class Sane(nn.Module):
    """A small network whose random weights give clear decisions."""

    def __init__(self, classes: int = 5, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.hidden = nn.Parameter(torch.randn(16, 12, generator=generator))
        self.out = nn.Parameter(torch.randn(classes, 16, generator=generator))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * ((x.flatten(1) - 0.5) @ self.hidden.T).relu() @ self.out.T


class Softmax(Sane):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(dim=1)


class Constant(Sane):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * super().forward(x) + torch.arange(5.0)


class Noisy(Sane):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class Rounded(Sane):
    """Gradients vanish, and random search sees through it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 255).round() / 255) if not x.requires_grad else self.masked(x)

    def masked(self, x: Tensor) -> Tensor:
        return super().forward(((x * 255).round() / 255).detach() + 0 * x)


class Rooted(Sane):
    """Its gradient is NaN where a pixel is dark, and its output is sound."""

    def forward(self, x: Tensor) -> Tensor:
        dark = (x - 0.5) * (x > 0.5)
        return super().forward(x) + torch.where(dark > 0, dark.sqrt(), 0).flatten(1)[:, :1] * 0.01


class BatchDependent(Sane):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(12, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x.flatten(1)))


class NaN(Sane):
    def forward(self, x: Tensor) -> Tensor:
        return (-1 - super().forward(x).abs()).log()


class OneOutput(Sane):
    def __init__(self) -> None:
        super().__init__(classes=1)


class Detached(Sane):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


def data(model: nn.Module, n: int = 40) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    model.eval()
    return x, Sane.forward(model, x).argmax(dim=1)  # type: ignore[arg-type]


def codes(model: nn.Module, **options: object) -> set[str]:
    x, y = data(model)
    suite = options.pop("suite", [("fgsm", FGSM(threat=LINF))])
    found = assay.evaluate(model, (x, y), threat=LINF, suite=suite, progress=False, **options)  # type: ignore[arg-type]
    return {flag.code for flag in found.flags}


def test_a_sane_model_raises_no_flag() -> None:
    assert codes(Sane(), suite="quick") == set()


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (Softmax, "softmax-outputs"),
        (Constant, "constant-output"),
        (Noisy, "random-output"),
        (Rounded, "zero-gradients"),
        (Rooted, "nan-gradients"),
        (BatchDependent, "batch-dependent"),
        (lambda: Sane(scale=1e4), "saturated-loss"),
    ],
)
def test_each_fault_raises_its_flag(model: Callable[[], nn.Module], code: str) -> None:
    assert code in codes(model())


def test_train_mode_is_flagged_and_put_back() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    x = torch.rand(10, 3, 2, 2)
    model.eval()
    y = model(x).argmax(dim=1)
    model.train()
    model[2].eval()  # a module that the user froze
    found = assay.evaluate(model, (x, y), threat=LINF, suite=[("fgsm", FGSM(threat=LINF))], progress=False)
    assert [flag.code for flag in found.flags] == ["train-mode"]
    assert found.clean_accuracy == 1.0  # dropout was off
    assert [module.training for module in model] == [True, True, False, True]


def test_a_batch_norm_left_in_train_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3)).eval()
    model[1].train()
    x, y = torch.rand(40, 3, 2, 2), torch.zeros(40, dtype=torch.int64)
    found = assay.evaluate(model, (x, y), threat=LINF, suite=[("fgsm", FGSM(threat=LINF))], progress=False)
    assert {"train-mode", "batch-dependent"} <= {flag.code for flag in found.flags}
    assert "1" in found.flags[0].message
    assert not model.training
    assert model[1].training


def test_black_box_beats_white_box() -> None:
    wide = assay.Linf(0.2)
    model = Rounded()
    x, y = data(model)
    suite = [("fgsm", FGSM(threat=wide)), ("square", Square(threat=wide, queries=200))]
    found = assay.evaluate(model, (x, y), threat=wide, suite=suite, progress=False)
    assert {"zero-gradients", "black-box-beats-white-box"} <= {flag.code for flag in found.flags}
    sane = assay.evaluate(Sane(), (x, y), threat=wide, suite=suite, progress=False)
    assert "black-box-beats-white-box" not in {flag.code for flag in sane.flags}


def test_a_search_that_beats_gradients() -> None:
    wide = assay.Linf(0.2)
    model = Rounded()
    x, y = data(model)
    first = APGD(threat=wide, steps=3, loss="margin")
    suite = [("apgd", first), ("relay", Relay(attack=first, queries=50))]
    found = assay.evaluate(model, (x, y), threat=wide, suite=suite, progress=False)
    flag = next(flag for flag in found.flags if flag.code == "search-beats-gradients")
    assert f"broke {found.results['stages'][1]['broken']} of the" in flag.message
    assert "withstood apgd" in flag.message
    sane = assay.evaluate(Sane(), (x, y), threat=wide, suite=suite, progress=False)
    assert "search-beats-gradients" not in {flag.code for flag in sane.flags}


@pytest.mark.parametrize(
    ("right", "asked", "broken", "flagged"),
    [
        (1000, 500, 20, True),  # 2 % of all
        (1000, 500, 19, False),
        (1000, 50, 5, True),  # a tenth of those that were asked about
        (1000, 50, 4, False),
        (1000, 4, 2, False),  # too few to speak of
        (20, 4, 3, True),
    ],
)
def test_how_many_samples_a_search_has_to_break(right: int, asked: int, broken: int, flagged: bool) -> None:
    suite = load_suite([("fgsm", FGSM(threat=LINF)), ("square", Square(threat=LINF))], LINF)
    stage = torch.full((right,), 1)
    stage[:asked], stage[:broken] = -1, 2
    zeros = torch.zeros(right, dtype=torch.int64)
    table = Table(
        index=zeros, label=zeros, prediction=zeros, confidence=zeros, adv_prediction=zeros, distance=zeros,
        forwards=zeros, backwards=zeros, stage=stage, robust=stage == -1, stages=("clean", "fgsm", "square"),
    )  # fmt: skip
    flags = checks.outcome(table, suite)
    assert [flag.code for flag in flags] == ["black-box-beats-white-box"] * flagged


@pytest.mark.parametrize(("model", "message"), [(NaN, "NaN"), (OneOutput, "two classes"), (Detached, "no gradient")])
def test_models_that_cannot_be_measured(model: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        codes(model())


def test_a_single_output_is_named_before_labels_are_called_wrong() -> None:
    with pytest.raises(ModelError, match=r"one value per sample.*torch\.stack"):
        assay.evaluate(OneOutput(), (torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 1, 0])), threat=LINF, progress=False)


@pytest.mark.parametrize(
    ("eps", "bounds", "flagged"),
    [(8.0, (0, 1), True), (1.0, (0, 1), True), (0.9, (0, 1), False), (1.5, (-1, 1), False)],
)
def test_an_eps_of_the_whole_range(eps: float, bounds: tuple[float, float], flagged: bool) -> None:
    flags = checks.budget(assay.Linf(eps, bounds=bounds), torch.Size((3, 4, 4)))
    assert [flag.code for flag in flags] == ["whole-range"] * flagged


@pytest.mark.parametrize(
    ("eps", "unit", "flagged"),
    [(48, "feature", True), (47, "feature", False), (16, "pixel", True), (15, "pixel", False), (None, "pixel", False)],
)
def test_a_budget_of_all_features(eps: float | None, unit: Literal["feature", "pixel"], flagged: bool) -> None:
    flags = checks.budget(assay.L0(eps, unit=unit), torch.Size((3, 4, 4)))
    assert [flag.code for flag in flags] == ["whole-range"] * flagged
    assert checks.budget(assay.L2(100.0), torch.Size((3, 4, 4))) == []


def test_an_eps_in_pixels_is_flagged_in_a_run() -> None:
    model, wide = Sane(), assay.Linf(8)
    suite = [("fgsm", FGSM(threat=wide))]
    found = assay.evaluate(model, data(model), threat=wide, suite=suite, progress=False)
    assert "whole-range" in {flag.code for flag in found.flags}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 255, y), r"outside the bounds.*divide by 255"),
        (lambda x, y: (x * 2 - 1, y), r"outside the bounds.*normalis"),
        (lambda x, y: ((x * 255).to(torch.uint8), y), r"uint8.*/ 255"),
        (lambda x, y: (x.log() * 0 + torch.nan, y), "NaN.*leave these samples out"),
        (lambda x, y: (x, y + 5), "labels run from"),
        (lambda x, y: (x, y - 1), "labels run from"),
    ],
)
def test_inputs_and_labels_that_cannot_be_used(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], message: str
) -> None:
    model = Sane()
    with pytest.raises(InputError, match=message):
        assay.evaluate(model, change(*data(model)), threat=LINF, suite="quick", progress=False)


def test_a_late_bad_sample_of_a_lazy_data_set_is_found_before_any_attack(tmp_path: Path) -> None:
    class Lazy(torch.utils.data.Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return torch.full((3, 2, 2), 2.0 if i == 39 else 0.5), 0

    with pytest.raises(InputError, match="outside the bounds"):
        assay.evaluate(Sane(), Lazy(), threat=LINF, suite="quick", chunk=10, out=tmp_path / "run", progress=False)
    assert not list((tmp_path / "run" / "shards").glob("01-*"))


def test_every_check_has_its_section_with_a_cure_and_an_example() -> None:
    page = (DOCS / "checks.md").read_text()
    sections = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", page, flags=re.M | re.S))
    for code in _KNOWN:
        assert Flag.of(code, "").link == f"docs/checks.md#{code}"
        assert "**Cure.**" in sections[code], code
        assert "```" in sections[code], code
