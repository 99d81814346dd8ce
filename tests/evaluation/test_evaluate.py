from __future__ import annotations

import errno
import gc
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

import assay
from assay import files
from assay.attacks import APGD, FGSM, PGD, Attack
from assay.errors import AccessError, AssayError, InputError, SettingError, StoreError, ThreatError
from assay.evaluation import Evaluation, Store
from assay.evaluation.merge import COLUMNS, Table
from assay.evaluation.report import source
from assay.evaluation.shards import ADV
from assay.goals import Goal
from assay.models import LabelsOnly
from assay.oracle import Access, Oracle
from assay.rng import Keyed

LINF = assay.Linf(0.08)
SUITE = [("fgsm", FGSM(threat=LINF)), ("pgd", PGD(threat=LINF, steps=5)), ("apgd", APGD(threat=LINF, steps=8))]
N = 40


class Network(nn.Module):
    """A small network with fixed weights; it can be told to fail at its nth call."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.hidden = nn.Parameter(torch.randn(16, 12, generator=generator))
        self.out = nn.Parameter(torch.randn(5, 16, generator=generator))
        self.calls_left = -1

    def forward(self, x: Tensor) -> Tensor:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise KeyboardInterrupt
        return ((x.flatten(1) - 0.5) @ self.hidden.T).relu() @ self.out.T


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power cuts are not tested here, and waiting for the disk would take most of the time."""
    monkeypatch.setattr(files.os, "fsync", lambda _: None)


@pytest.fixture
def model() -> Network:
    return Network().eval()


@pytest.fixture
def data(model: Network) -> tuple[Tensor, Tensor]:
    x = torch.rand(N, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[::9] = (y[::9] + 1) % 5  # some are wrong from the start
    return x, y


def run(model: nn.Module, data: Any, **options: Any) -> Evaluation:
    options = {"threat": LINF, "suite": SUITE, "progress": False, **options}
    return assay.evaluate(model, data, **options)


def same(a: Table, b: Table) -> None:
    for name in COLUMNS:
        first, second = getattr(a, name), getattr(b, name)
        if first.is_floating_point():
            torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7, msg=name)
        else:
            assert torch.equal(first, second), name


# ---------------------------------------------------------------- what is measured


def test_an_affine_model_is_measured_exactly() -> None:
    """Linf on two classes: a sample breaks at eps exactly when its margin is below eps times the L1 norm of w."""
    generator = torch.Generator().manual_seed(2)
    model = nn.Linear(6, 2).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.randn(2, 6, generator=generator))
        model.bias.copy_(-model.weight.sum(dim=1) / 2)  # the decision changes in the middle of the inputs
        x = 0.3 + 0.4 * torch.rand(200, 6, generator=generator).double()  # no bound is ever in the way
        logits = model(x)
        w = model.weight[1] - model.weight[0]
        radius = (logits[:, 1] - logits[:, 0]).abs() / w.abs().sum()
    y = logits.argmax(dim=1)
    eps = 0.05
    found = assay.evaluate(model, (x, y), threat=assay.Linf(eps), suite="quick", progress=False)
    assert ((radius - eps).abs() > 1e-6).all()
    assert torch.equal(found.samples.robust, radius > eps)
    assert 0.0 < found.robust_accuracy < found.clean_accuracy == 1.0
    assert [flag.code for flag in found.flags] == ["fallback"]


def test_numbers_agree_with_each_other(model: Network, data: Any) -> None:
    found = run(model, data)
    results = found.results
    assert results["clean_accuracy"]["correct"] == N - 5
    assert found.robust_accuracy == found.samples.robust.double().mean()
    assert 0 < found.robust_accuracy < found.clean_accuracy
    left = N - 5
    for stage in results["stages"]:
        assert stage["asked"] == left
        left -= stage["broken"]
        assert stage["robust_accuracy"] == left / N
    assert left == results["robust_accuracy"]["correct"]
    curve = results["curve"]
    assert curve["robust_accuracy"][0] == found.clean_accuracy
    assert curve["robust_accuracy"][-1] == found.robust_accuracy
    assert curve["robust_accuracy"] == sorted(curve["robust_accuracy"], reverse=True)
    assert curve["eps"][-1] == 0.08
    broken = found.distances[(found.distances > 0) & found.distances.isfinite()]
    assert results["distances"]["count"] == len(broken) == N - 5 - left
    assert (found.samples.label[found.samples.robust] == found.samples.adv_prediction[found.samples.robust]).all()
    text = found.table()
    assert f"{found.robust_accuracy:.1%}" in text
    assert all(name in text for name, _ in SUITE)


@final
@dataclass(frozen=True, kw_only=True)
class Nothing(Attack):
    """Never moves."""

    threat: assay.Threat
    access: ClassVar[Access] = Access.SCORES

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        theta = self.threat.identity(x)
        oracle.judge(theta)
        return theta


def test_an_attack_that_does_nothing_breaks_nothing(model: Network, data: Any) -> None:
    idle = run(model, data, suite=[("idle", Nothing(threat=LINF))])
    assert idle.robust_accuracy == idle.clean_accuracy == (N - 5) / N
    assert run(model, data).robust_accuracy < idle.robust_accuracy - 0.1


def test_without_a_budget_the_smallest_found_perturbations_make_the_curve(model: Network, data: Any) -> None:
    threat = assay.Linf()
    found = run(model, data, threat=threat, suite=[("idle", Nothing(threat=threat))])
    assert found.results["curve"]["robust_accuracy"][-1] == found.clean_accuracy
    assert found.results["curve"]["exact"]


# ---------------------------------------------------------------- the same table


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_the_chunk_does_not_matter(model: Network, data: Any, chunk: int) -> None:
    same(run(model, data, limit=20).samples, run(model, data, limit=20, chunk=chunk).samples)


@pytest.mark.parametrize("suite", [SUITE, "standard"], ids=["three", "standard"])
def test_the_order_does_not_matter(model: Network, data: Any, suite: Any) -> None:
    x, y = data
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    shuffled = run(model, (x[order], y[order], order), chunk=7, suite=suite)
    same(run(model, data, suite=suite).samples, shuffled.samples)


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("aim", ["next", "least-likely", 2])
def test_targets_are_reached_wherever_they_can_be(aim: Any) -> None:
    """Of an affine model a linear programme tells exactly by how much the wanted logit can be ahead of all others."""
    eps = 0.06
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, dtype=torch.float64)).eval()
    model[1].weight.data, model[1].bias.data = weight, -0.5 * weight.sum(dim=1)
    x = torch.rand(30, 3, 2, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64) * 0.4 + 0.3
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(dim=1)
    target = {"next": (y + 1) % 4, "least-likely": logits.argmin(dim=1), 2: torch.full_like(y, 2)}[aim]
    found = run(model, (x, y), suite="standard", targeted=aim, threat=assay.Linf(eps), chunk=7)
    for i in range(30):
        t = int(target[i])
        if t == y[i]:  # a sample of the class itself is not attacked
            assert found.samples.robust[i]
            assert found.samples.forwards[i] == 1
            continue
        others = [k for k in range(4) if k != t]
        rows = np.column_stack([(weight[others] - weight[t]).numpy(), np.ones(3)])  # s <= ahead + move (w_t - w_k)
        ahead = (logits[i, t] - logits[i, others]).numpy()
        best = -linprog([0.0] * 12 + [-1.0], A_ub=rows, b_ub=ahead, bounds=[(-eps, eps)] * 12 + [(None, None)]).fun
        assert bool(found.samples.robust[i]) == (best < 0), best
        if best > 0:
            assert found.samples.adv_prediction[i] == t
    assert 0 < int((~found.samples.robust).sum()) < int((target != y).sum())
    assert f"targeted ({'class 2' if aim == 2 else aim})" in found.table()


def test_targets_are_of_the_sample_and_not_of_its_chunk(model: Network, data: Any) -> None:
    settings: Any = {"targeted": "random", "suite": "standard"}
    x, y = data
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    same(run(model, data, **settings).samples, run(model, (x[order], y[order], order), chunk=7, **settings).samples)
    assert run(model, data, **settings).robust_accuracy > run(model, data, suite="standard").robust_accuracy


def test_a_run_remembers_its_targets(model: Network, data: Any, tmp_path: Path) -> None:
    found = run(model, data, targeted="next", out=tmp_path / "run")
    assert found.store.run["settings"]["goal"] == "next"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "targeted (next)" in page
    assert "--targeted next" in page
    assert "every targeted attack" in page
    with pytest.raises(StoreError, match='goal: "next" -> "untargeted"'):
        run(model, data, out=tmp_path / "run", resume=True)
    assert run(model, data, targeted="1", out=tmp_path / "one").robust_accuracy >= 0


@pytest.mark.parametrize(("aim", "found"), [("sideways", "unknown target"), (5, "no class 5"), (-1, "unknown target")])
def test_targets_that_are_none(model: Network, data: Any, aim: Any, found: str) -> None:
    with pytest.raises(SettingError, match=found):
        run(model, data, targeted=aim)


def test_targets_need_scores(model: Network, data: Any) -> None:
    with pytest.raises(AccessError, match="labels only"):
        run(LabelsOnly(model), data, targeted="next", suite="black-box")


def test_the_seed_does_matter(model: Network, data: Any) -> None:
    suite = [("pgd", PGD(threat=LINF, steps=1))]
    first, second = (run(model, data, suite=suite, seed=seed).samples for seed in (0, 1))
    assert not torch.equal(first.distance, second.distance)


def test_a_lazy_data_set_gives_the_same(model: Network, data: Any) -> None:
    pairs = [(x, int(y)) for x, y in zip(*data, strict=True)]

    class Lazy(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return N

        def __getitem__(self, i: int) -> Any:
            return pairs[i]

    same(run(model, data).samples, run(model, Lazy(), chunk=9).samples)


def test_float64_models_take_float32_data(model: Network, data: Any) -> None:
    wide, narrow = run(model.double(), data), run(Network().eval(), data)
    assert wide.clean_accuracy == narrow.clean_accuracy
    assert abs(wide.robust_accuracy - narrow.robust_accuracy) < 0.1  # other draws, the same strength


def test_the_name_of_a_stage_decides_nothing(model: Network, data: Any) -> None:
    same(run(model, data).samples, run(model, data, suite=[(f"{name}-2", attack) for name, attack in SUITE]).samples)


def test_a_bad_sample_is_named_by_its_place_in_the_data(model: Network) -> None:
    class Lazy(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return N

        def __getitem__(self, position: int) -> Any:
            return torch.full((3, 2, 2), torch.nan if position == 37 else 0.5), 0

    with pytest.raises(InputError, match=r"samples 30 to 39 \(row 0 is sample 30\): .*first: row 7"):
        run(model, Lazy(), chunk=10)


def test_limit_takes_the_first(model: Network, data: Any) -> None:
    x, y = data
    same(run(model, data, limit=11).samples, run(model, (x[:11], y[:11])).samples)


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize("call", [8, 20, 30, 45])
def test_ctrl_c_then_resume(
    model: Network, data: Any, tmp_path: Path, call: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(model, data, chunk=10)
    model.calls_left = call
    with pytest.raises(KeyboardInterrupt):
        run(model, data, chunk=10, out=tmp_path / "run", progress=None)
    assert "--resume" in capsys.readouterr().err
    interrupted = Store.open(tmp_path / "run")
    assert interrupted.run["state"] == "interrupted"
    kept = {path: path.stat().st_mtime_ns for path in interrupted.path.rglob("*.safetensors")}
    model.calls_left = -1
    resumed = run(model, data, out=tmp_path / "run", resume=True)  # the chunk is the run's own
    same(whole.samples, resumed.samples)
    assert without_seconds(whole.results) == without_seconds(resumed.results)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # nothing was computed twice
    assert Store.open(tmp_path / "run").run["state"] == "done"


def test_an_error_of_the_model_says_what_is_kept(data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Failing(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if list(tmp_path.rglob("01-*/*.safetensors")):
                raise RuntimeError("no such kernel")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="no such kernel"):
        run(Failing(), data, chunk=10, out=tmp_path / "run", progress=None)
    kept = len(list(tmp_path.rglob("*.safetensors")))
    said = " ".join(capsys.readouterr().err.split())
    assert f"stopped by an error: {kept} of" in said
    assert "continue with --resume" in said


def without_seconds(results: Any) -> Any:
    return {**results, "stages": [{**stage, "seconds": 0} for stage in results["stages"]]}


def test_lost_and_damaged_shards_are_computed_again(
    model: Network, data: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(model, data, chunk=10, out=tmp_path / "run")
    shards = sorted((tmp_path / "run" / "shards").rglob("*.safetensors"))
    for path in shards[2::5]:
        path.unlink()
    shards[0].write_bytes(b"not a shard")
    shards[9].write_bytes(shards[9].read_bytes()[:-3])
    resumed = run(model, data, chunk=10, out=tmp_path / "run", resume=True)
    same(whole.samples, resumed.samples)
    assert [flag.code for flag in resumed.flags] == ["damaged-shard"]
    assert "damaged" in caplog.text


def test_a_full_disk_in_the_middle(model: Network, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(model, data, chunk=10)
    real, room = files._write, [9]

    def write(path: Path, content: bytes) -> None:
        room[0] -= 1
        if room[0] < 0:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    monkeypatch.setattr(files, "_write", write)
    with pytest.raises(StoreError, match="disk is full"):
        run(model, data, chunk=10, out=tmp_path / "run")
    monkeypatch.undo()
    assert len(list((tmp_path / "run").rglob("*.safetensors"))) == 6  # all but two probes and run.json
    assert not list((tmp_path / "run").rglob(".*"))
    same(whole.samples, run(model, data, out=tmp_path / "run", resume=True).samples)


def test_a_finished_run_can_be_resumed_for_nothing(model: Network, data: Any, tmp_path: Path) -> None:
    first = run(model, data, out=tmp_path / "run")
    model.calls_left = 8  # enough for the look at the model, not for an attack
    again = run(model, data, out=tmp_path / "run", resume=True)
    same(first.samples, again.samples)
    assert Store.open(tmp_path / "run").run["state"] == "done"


def test_other_weights_are_not_continued(model: Network, data: Any, tmp_path: Path) -> None:
    run(model, data, out=tmp_path / "run")
    with torch.no_grad():
        model.out += 0.01
    with pytest.raises(StoreError, match="model_digest"):
        run(model, data, out=tmp_path / "run", resume=True)
    x, y = data
    with pytest.raises(StoreError, match="data_digest"):
        run(Network().eval(), (1 - x, y), out=tmp_path / "run", resume=True)


def test_a_file_that_the_model_is_only_named_after_is_not_part_of_it(
    model: Network, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(model, data, out="run", model_name="net.pt")
    Path("net.pt").write_bytes(b"something else")
    assert run(model, data, out="run", model_name="net.pt", resume=True).results["samples"] == N


def test_the_folder_is_tried_before_the_model_is_asked(
    model: Network, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, content: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "_write", denied)
    model.calls_left = 1
    with pytest.raises(StoreError, match="cannot be written"):
        run(model, data, out=tmp_path / "run")
    assert model.calls_left == 1


def test_overwrite_replaces_the_run(model: Network, data: Any, tmp_path: Path) -> None:
    run(model, data, out=tmp_path / "run", chunk=5)
    with pytest.raises(StoreError, match="--overwrite"):
        run(model, data, out=tmp_path / "run", seed=1)
    second = run(model, data, out=tmp_path / "run", seed=1, overwrite=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["seed"] == 1
    assert len(list((second.path / "shards" / "00-clean").iterdir())) == 1


# ---------------------------------------------------------------- adversarial inputs


@pytest.mark.parametrize("lose", [False, True])
def test_saved_inputs_are_the_worst_of_each_sample(model: Network, data: Any, tmp_path: Path, lose: bool) -> None:
    x, y = data
    found = run(model, data, chunk=16, out=tmp_path / "run", save_adv=True)
    if lose:
        (tmp_path / "run" / "adv" / "00000016.safetensors").unlink()
        (tmp_path / "run" / "shards" / "03-apgd" / "00000032.safetensors").unlink()
        found = run(model, data, chunk=16, out=tmp_path / "run", save_adv=True, resume=True)
    saved = torch.cat([found.store.read_shard(ADV, start).columns["x_adv"] for start, _ in found.store.chunks])
    robust = found.samples.robust
    assert torch.equal(saved[robust], x[robust])
    assert torch.equal(model(saved).argmax(dim=1) == y, robust)
    size = (saved - x).abs().flatten(1).amax(dim=1)
    assert (size <= 0.08 + 1e-6).all()
    broken = found.samples.stage > 0
    torch.testing.assert_close(size[broken].double(), found.distances[broken])
    assert broken.sum() > 3


def test_examples_for_the_gallery_are_what_they_say(model: Network, data: Any) -> None:
    x, y = data
    found = run(model, data, chunk=16)
    examples = source.read(found.path).examples
    assert len(examples) > 3
    for example in examples:
        assert torch.equal(torch.from_numpy(example.clean).float(), x[example.index])
        assert example.label == example.before == y[example.index]
        adversarial = torch.from_numpy(example.adversarial).float()
        assert int(model(adversarial[None]).argmax()) == example.after != example.label


# ---------------------------------------------------------------- misuse and small things


def test_a_temporary_run_lives_as_long_as_its_evaluation(model: Network, data: Any) -> None:
    found = run(model, data)
    path = found.path
    assert (path / "run.json").exists()
    del found
    gc.collect()
    assert not path.exists()


def test_nothing_is_printed_without_progress(model: Network, data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, data)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chunk": 0}, SettingError, "chunk must be at least 1"),
        ({"limit": 0}, SettingError, "limit"),
        ({"devices": 0}, SettingError, "devices must be at least 1"),
        ({"devices": 2}, SettingError, "load the model by name"),
        ({"resume": True}, SettingError, "give out"),
        ({"threat": assay.Linf(torch.full((N,), 0.1)), "suite": "quick"}, ThreatError, "one eps for all"),
        ({"suite": "standart"}, ValueError, "standard"),
        ({"threat": "linf:x"}, ValueError, "linf"),
    ],
)
def test_settings_that_make_no_sense(
    model: Network, data: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(model, data, **options)


class Sum(nn.Module):
    """No parameters; it remembers where its inputs were."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.device
        x = x.flatten(1)
        return torch.stack([x[:, :6].sum(dim=1), x[:, 6:].sum(dim=1)], dim=1)


def test_a_model_without_parameters_runs_where_it_is_asked_to(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("assay.evaluation.evaluate")
    monkeypatch.setattr(module, "own_device", lambda: torch.device("meta"))  # stands for a card
    model, (x, _) = Sum(), data
    y = model(x).argmax(dim=1)
    assert run(model, (x, y), device="cpu").clean_accuracy == 1.0
    assert model.seen.type == "cpu"
    assert run("digits-mlp", "digits", limit=5, device="cpu").results["samples"] == 5


@pytest.mark.parametrize(
    ("device", "words"), [("toaster", "'toaster' cannot be used"), ("meta", "the model is on 'cpu': move it")]
)
def test_devices_that_do_not_fit(model: Network, data: Any, device: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        run(model, data, device=device)
    with pytest.raises(SettingError, match="leave device out"):
        assay.evaluate("digits-mlp", "digits", threat=LINF, out="unused", devices=2, device="cpu")


def test_samples_need_numbers_of_their_own(model: Network, data: Any) -> None:
    x, y = data
    with pytest.raises(InputError, match="same index"):
        run(model, (x, y, torch.zeros(N, dtype=torch.int64)))


def test_a_model_that_grants_scores_only(model: Network, data: Any) -> None:
    model.access = Access.SCORES  # type: ignore[assignment]
    found = run(model, data, suite="quick", limit=10)
    assert [stage["name"] for stage in found.results["stages"]] == ["square"]
    assert {flag.code for flag in found.flags} == {"stage-skipped"}
    with pytest.raises(AccessError, match="no stage"):
        run(model, data)


def test_the_model_is_left_as_it_was(model: Network, data: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    run(model, data)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_run_directory_holds_its_report_and_the_names_of_the_classes(model: Network, tmp_path: Path) -> None:
    x = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    named = assay.Data(x=x, y=model(x).argmax(1), name="six", classes=("coat", "shirt", "bag", "boot", "dress"))
    evaluation = assay.evaluate(model, named, threat=LINF, suite=SUITE, out=tmp_path / "run", progress=False)
    assert evaluation.store.run["settings"]["classes"] == ["coat", "shirt", "bag", "boot", "dress"]
    assert "coat" in (tmp_path / "run" / "report.html").read_text()


def test_a_missing_budget_is_told_before_the_folder_is_made(model: Network, data: Any, tmp_path: Path) -> None:
    with pytest.raises(AssayError, match="needs a budget"):
        assay.evaluate(model, data, threat="linf", suite="quick", out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "run.json").exists()
