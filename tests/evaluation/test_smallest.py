"""Runs whose threat has no budget: the smallest distance of every sample, best over all stages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch
from torch import Tensor, nn

import assay
from assay import files
from assay.attacks import PGD, Attack
from assay.errors import SettingError
from assay.evaluation import Evaluation, Store, smallest
from assay.evaluation.merge import COLUMNS, Table
from assay.evaluation.report import source
from assay.evaluation.schema import StageRecord
from assay.evaluation.shards import ADV, Shard
from assay.evaluation.suites import default_suite, load_suite
from assay.goals import Goal
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import Threat

N = 60


@final
@dataclass(frozen=True, kw_only=True)
class Ray(Attack):
    """Bisects the way along the steepest direction, exact for two affine classes; lazy or blind on some samples.

    Args:
        threat: Which moves are allowed, and how they are measured.
        lazy: Share of the samples whose search ends early, at a distance that is larger than need be.
        blind: Share of the samples for which nothing is found.
        access: As every attack has it.
    """

    threat: Threat
    lazy: float = 0.0
    blind: float = 0.0
    access: ClassVar[Access] = Access.GRADIENTS

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        draw = rng.uniform(2)
        lazy, seeing = draw[:, 0] < self.lazy, draw[:, 1] >= self.blind
        zero, one = torch.zeros_like(x), torch.ones_like(x[:, 0])
        _, grad, _ = oracle.gradient(zero, margin, rows=seeing)
        direction = self.threat.ascend(x, zero, grad, one)
        short, long = torch.zeros_like(one), torch.full_like(one, 4.0)
        for step in range(34):
            rows = seeing & ~(lazy & (step > 2))
            middle = (short + long) / 2
            output = oracle.scores(direction * middle[:, None], rows)
            hit = goal.reached(output)
            long, short = torch.where(hit & rows, middle, long), torch.where(~hit & rows, middle, short)
        return direction * long[:, None]


class Plane(nn.Module):
    """Two affine classes, in double precision, with room for every nearest adversarial inside wide bounds."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = nn.Parameter(torch.randn(2, 6, generator=generator).double())
        self.calls_left = -1

    def forward(self, x: Tensor) -> Tensor:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise KeyboardInterrupt
        return x @ self.weight.T

    def exact(self, x: Tensor, power: float) -> Tensor:
        """Distance of each input to the plane, in the norm of this power."""
        normal = (self.weight[0] - self.weight[1]).detach()
        dual = 1.0 if math.isinf(power) else math.inf if power == 1 else power / (power - 1)
        return (x @ normal).abs() / torch.linalg.vector_norm(normal, ord=dual)


BOUNDS = (-50.0, 50.0)
LINF = assay.Linf(bounds=BOUNDS)
TWO = [("first", Ray(threat=LINF, lazy=0.5)), ("second", Ray(threat=LINF, lazy=0.5))]


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "fsync", lambda _: None)


@pytest.fixture
def model() -> Plane:
    return Plane().eval()


@pytest.fixture
def data(model: Plane) -> tuple[Tensor, Tensor]:
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(5)).double()
    y = model(x).argmax(dim=1)
    y[::10] = 1 - y[::10]  # some are wrong from the start
    return x, y


def run(model: nn.Module, data: Any, **options: Any) -> Evaluation:
    options = {"threat": LINF, "suite": TWO, "progress": False, **options}
    return assay.evaluate(model, data, **options)


def same(a: Table, b: Table) -> None:
    for name in COLUMNS:
        first, second = getattr(a, name), getattr(b, name)
        if first.is_floating_point():
            torch.testing.assert_close(first, second, rtol=1e-6, atol=0, msg=name)
        else:
            assert torch.equal(first, second), name


def by_stage(found: Evaluation) -> Tensor:
    store = found.store
    shards = [[store.read_shard(stage, start) for start, _ in store.chunks] for stage in store.stages[1:]]
    return torch.stack([torch.cat([shard.columns["distance"] for shard in own]) for own in shards])


# ---------------------------------------------------------------- what is measured


@pytest.mark.parametrize(
    ("threat", "power"),
    [(LINF, math.inf), (assay.L2(bounds=BOUNDS), 2.0), (assay.L1(bounds=BOUNDS), 1.0)],
    ids=["linf", "l2", "l1"],
)
def test_the_better_of_two_stages_is_exact_for_every_sample(
    model: Plane, data: Any, threat: Threat, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if power == 1:  # the step of this threat spreads over several coordinates; one alone is the shortest way

        def steepest(self: Threat, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
            top = grad.abs().argmax(dim=1, keepdim=True)
            return torch.zeros_like(grad).scatter(1, top, grad.gather(1, top).sign())

        monkeypatch.setattr(type(threat), "ascend", steepest)
    suite = [("first", Ray(threat=threat, lazy=0.5)), ("second", Ray(threat=threat, lazy=0.5))]
    found = run(model, data, threat=threat, suite=[*suite, ("sure", Ray(threat=threat))], save_adv=False)
    x, _ = data
    right = found.samples.clean_correct
    exact = model.exact(x, power)[right]
    torch.testing.assert_close(found.distances[right], exact, rtol=1e-6, atol=0)
    assert (found.distances[right] >= exact * (1 - 1e-9)).all()
    assert (found.distances[~right] == 0).all()
    first, second, _ = by_stage(found)
    lazy_first, lazy_second = first > exact * 1.001, second > exact * 1.001
    assert min(lazy_first.sum(), lazy_second.sum(), (lazy_first & ~lazy_second).sum()) > 5
    both = run(model, data, threat=threat, suite=suite)
    torch.testing.assert_close(both.distances[right], torch.minimum(first, second), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        both.distances[right][~(lazy_first & lazy_second)], exact[~(lazy_first & lazy_second)], rtol=1e-6, atol=0
    )
    stage = both.samples.stage[right]
    assert torch.equal(stage == 1, first <= second)
    assert torch.equal(stage == 2, second < first)
    assert {int(number) for number in stage} == {1, 2}


def test_numbers_agree_with_each_other(model: Plane, data: Any) -> None:
    suite = [("first", Ray(threat=LINF, lazy=0.5, blind=0.3)), ("second", Ray(threat=LINF, lazy=0.5, blind=0.3))]
    found = run(model, data, suite=suite)
    results, distance = found.results, found.distances
    right = found.samples.clean_correct
    stages = by_stage(found)
    least = stages.amin(dim=0)
    assert torch.equal(distance[right], least)
    assert results["robust_accuracy"] is None
    assert found.robust_accuracy is None
    assert found.clean_accuracy == right.double().mean()
    for stage, own in zip(results["stages"], stages, strict=True):
        assert stage["asked"] == int(right.sum())  # all of them, whatever other stages found
        assert stage["broken"] == own.isfinite().sum() < stage["asked"]
        assert stage["robust_accuracy"] is None
        assert stage["smallest"] == ((own <= least * (1 + 1e-6)) & own.isfinite()).sum()
        ordered = own.sort().values
        assert stage["median"] == pytest.approx(float((ordered[26] + ordered[27]) / 2))
    assert sum(stage["smallest"] for stage in results["stages"]) >= results["distances"]["count"]
    assert results["distances"]["count"] == least.isfinite().sum()
    assert results["distances"]["missed"] == least.isinf().sum() == found.samples.robust.sum() > 0
    assert results["distances"]["median"] == found.median_distance
    assert found.samples.stage[right][least.isinf()].eq(-1).all()
    assert [flag.code for flag in found.flags] == ["not-found", "attacks-disagree"]
    assert f"for {int(least.isinf().sum())} of 54 samples" in found.flags[0].message
    forwards = sum(stage["forwards"] for stage in results["stages"])
    assert int(found.samples.forwards.sum()) == forwards + N


def test_the_curve_is_the_survival_function_of_the_distances(model: Plane, data: Any) -> None:
    found = run(model, data, suite=[("ray", Ray(threat=LINF, blind=0.2))])
    curve, distance = found.results["curve"], found.distances
    assert curve["exact"]
    assert curve["eps"] == [0.0, *sorted({d for d in distance.tolist() if 0 < d < math.inf})]
    for eps, value, low, high in zip(*(curve[k] for k in ("eps", "robust_accuracy", "low", "high")), strict=True):
        assert value == float((distance > eps).double().mean()) == found.accuracy_at(eps)
        assert low < value < high
    assert curve["robust_accuracy"][0] == found.clean_accuracy
    assert curve["robust_accuracy"][-1] == found.samples.robust.double().mean() > 0
    between = (curve["eps"][7] + curve["eps"][8]) / 2
    assert found.accuracy_at(between) == curve["robust_accuracy"][7]
    assert found.accuracy_at(1e9) == curve["robust_accuracy"][-1]
    with pytest.raises(SettingError, match="negative"):
        found.accuracy_at(-0.1)


def test_a_long_curve_is_thinned_to_samples_of_even_rank() -> None:
    distance = torch.rand(5000, generator=torch.Generator().manual_seed(0)).double() ** 3
    distance[:500] = torch.inf
    distance[500:900] = 0.0
    curve = smallest.curve(distance)
    assert len(curve["eps"]) == 257
    assert curve["eps"][0] == 0.0
    assert curve["eps"][-1] == distance[distance.isfinite()].max()
    assert curve["robust_accuracy"][0] == 0.92
    assert curve["robust_accuracy"][-1] == 0.1
    steps = torch.tensor(curve["robust_accuracy"]).diff()
    assert (steps < 0).all()
    assert steps.min() > -0.004
    for eps, value in zip(curve["eps"], curve["robust_accuracy"], strict=True):
        assert value == float((distance > eps).double().mean())


def test_when_nothing_or_everything_is_found() -> None:
    nothing = smallest.distances(torch.full((20,), torch.inf))
    assert (nothing["median"], nothing["count"], nothing["missed"]) == (None, 0, 20)
    assert (nothing["low"], nothing["high"], nothing["quartiles"]) == (None, None, [None, None])
    assert smallest.curve(torch.full((3,), torch.inf))["eps"] == [0.0]
    few = smallest.distances(torch.tensor([1.0, 2.0, 4.0]))
    assert (few["median"], few["low"], few["high"], few["quartiles"]) == (2.0, 0.0, None, [1.5, 3.0])
    none = smallest.distances(torch.zeros(0))
    assert (none["median"], none["count"], none["missed"]) == (None, 0, 0)
    half = smallest.distances(torch.tensor([1.0, 2.0, 4.0, torch.inf]))
    assert (half["median"], half["quartiles"]) == (3.0, [1.75, None])
    many = smallest.distances(torch.arange(1.0, 21.0))
    assert (many["low"], many["median"], many["high"]) == (6.0, 10.5, 15.0)


def test_stages_of_an_unfinished_run_are_compared_chunk_by_chunk() -> None:
    def shard(stage: str, start: int, *distance: float) -> Shard:
        values = torch.tensor(distance).double()
        ones = torch.ones(len(distance), dtype=torch.int64)
        columns = {"index": ones, "success": values.isfinite(), "distance": values, "forwards": ones, "backwards": ones}
        return Shard(stage=stage, start=start, stop=start + 3, columns=columns)

    records: list[StageRecord] = [{"name": name, "attack": name} for name in "abc"]
    shards = [[shard("a", 0, 1.0, 2.0, 3.0), shard("a", 3, 1.0, torch.inf, 1.0)], [shard("b", 0, 2.0, 1.0, 3.0)], []]
    first, second = smallest.stage_results(records, shards)
    assert (first["asked"], first["broken"], first["smallest"], first["median"]) == (6, 5, 4, 1.5)
    assert (second["asked"], second["broken"], second["smallest"], second["median"]) == (3, 3, 2, 2.0)


def test_a_numeric_eps_asks_the_survivors_of_the_same_attacks(model: Plane, data: Any) -> None:
    exact = model.exact(data[0], math.inf)
    eps = float(exact.median()) * 1.000001
    threat = assay.Linf(eps, bounds=BOUNDS)
    suite = [("lazy", Ray(threat=threat, lazy=0.5)), ("sure", Ray(threat=threat))]
    found = run(model, data, threat=threat, suite=suite)
    right = found.samples.clean_correct
    assert torch.equal(found.samples.robust, right & (exact > eps))
    first, second = found.results["stages"]
    assert second["asked"] == first["asked"] - first["broken"]
    assert first["broken"] > 0 < second["broken"]
    assert "minimal" not in found.store.run["settings"]
    assert found.accuracy_at(eps) == found.robust_accuracy
    assert found.accuracy_at(0) == found.clean_accuracy
    with pytest.raises(SettingError, match="beyond the budget"):
        found.accuracy_at(2 * eps)
    assert found.median_distance == math.inf or found.median_distance <= eps * (1 + 1e-9)


# ---------------------------------------------------------------- the same table


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_the_chunk_does_not_matter(model: Plane, data: Any, chunk: int) -> None:
    same(run(model, data, limit=15).samples, run(model, data, limit=15, chunk=chunk).samples)


def test_the_order_does_not_matter(model: Plane, data: Any) -> None:
    x, y = data
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    same(run(model, data).samples, run(model, (x[order], y[order], order), chunk=7).samples)


@pytest.mark.parametrize("call", [20, 150, 260])
def test_ctrl_c_then_resume(model: Plane, data: Any, tmp_path: Path, call: int) -> None:
    whole = run(model, data, chunk=16)
    model.calls_left = call
    with pytest.raises(KeyboardInterrupt):
        run(model, data, chunk=16, out=tmp_path / "run", save_adv=True)
    interrupted = Store.open(tmp_path / "run")
    assert interrupted.run["state"] == "interrupted"
    kept = {path: path.stat().st_mtime_ns for path in (interrupted.path / "shards").rglob("*.safetensors")}
    model.calls_left = -1
    resumed = run(model, data, out=tmp_path / "run", resume=True, save_adv=True)
    same(whole.samples, resumed.samples)
    assert without_seconds(whole.results) == without_seconds(resumed.results)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    check_saved(resumed, data)


def without_seconds(results: Any) -> Any:
    return {**results, "stages": [{**stage, "seconds": 0} for stage in results["stages"]]}


CHILD = """
import importlib.util, os, sys
os.environ.update(environment)
spec = importlib.util.spec_from_file_location("smallest_runs", file)
module = importlib.util.module_from_spec(spec)
sys.modules["smallest_runs"] = module
spec.loader.exec_module(module)
module.child(out)
"""


def child(out: str) -> None:
    """What each of two processes runs."""
    torch.set_num_threads(1)
    model = Plane().eval()
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(5)).double()
    y = model(x).argmax(dim=1)
    y[::10] = 1 - y[::10]
    run(model, (x, y), chunk=8, out=out, resume=True)


def test_two_processes_share_the_chunks(
    model: Plane, data: Any, tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    whole = run(model, data)
    own = {"file": __file__, "out": str(tmp_path / "run")}
    processes = [start(CHILD, **own, environment={"WORLD_SIZE": "2", "RANK": str(rank)}) for rank in (0, 1)]
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    store = Store.open(tmp_path / "run")
    assert store.run["state"] == "done"
    assert len(store.chunks) == 8
    same(whole.samples, store.merge())
    assert without_seconds(store.run["results"])["curve"] == whole.results["curve"]


# ---------------------------------------------------------------- what is kept


def check_saved(found: Evaluation, data: Any) -> None:
    """The saved input of each sample is its nearest adversarial one."""
    x, y = data
    saved = torch.cat([found.store.read_shard(ADV, start).columns["x_adv"] for start, _ in found.store.chunks])
    broken = found.samples.stage > 0
    size = (saved - x).abs().amax(dim=1)
    torch.testing.assert_close(size[broken], found.distances[broken], rtol=1e-9, atol=0)
    assert (Plane().eval()(saved[broken]).argmax(dim=1) != y[broken]).all()
    assert torch.equal(saved[~broken], x[~broken])
    assert broken.any()


@pytest.mark.parametrize("lose", [False, True])
def test_saved_inputs_are_the_nearest_of_each_sample(model: Plane, data: Any, tmp_path: Path, lose: bool) -> None:
    suite = [("first", Ray(threat=LINF, lazy=0.5, blind=0.2)), ("second", Ray(threat=LINF, lazy=0.5, blind=0.2))]
    options: dict[str, Any] = {"suite": suite, "chunk": 16, "out": tmp_path / "run", "save_adv": True}
    found = run(model, data, **options)
    if lose:
        (tmp_path / "run" / "adv" / "00000016.safetensors").unlink()
        (tmp_path / "run" / "shards" / "02-second" / "00000032.safetensors").unlink()
        found = run(model, data, resume=True, **options)
    check_saved(found, data)


def test_a_stage_of_other_samples_is_refused(model: Plane, data: Any, tmp_path: Path) -> None:
    found = run(model, data, out=tmp_path / "run")
    shard = found.store.read_shard("second", 0)
    half = {name: column[::2] for name, column in shard.columns.items()}
    found.store.write_shard(Shard(stage="second", start=0, stop=shard.stop, columns=half))
    with pytest.raises(assay.errors.StoreError, match="does not fit"):
        found.store.merge()
    assert any("does not fit" in note for note in source.read(tmp_path / "run").notes)


def test_a_run_of_another_kind_is_not_continued(model: Plane, data: Any, tmp_path: Path) -> None:
    threat = assay.Linf(0.2, bounds=BOUNDS)
    run(model, data, threat=threat, suite=[("ray", Ray(threat=threat))], out=tmp_path / "run")
    with pytest.raises(assay.errors.StoreError, match="minimal: null -> true"):
        run(model, data, suite=[("ray", Ray(threat=LINF))], out=tmp_path / "run", resume=True)


def test_run_json_says_what_was_measured(model: Plane, data: Any, tmp_path: Path) -> None:
    found = run(model, data, suite=[("blind", Ray(threat=LINF, blind=1.0))], out=tmp_path / "run")
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    assert content["settings"]["minimal"] is True
    assert content["settings"]["threat"] == "Linf(bounds=(-50.0, 50.0))"
    assert content["results"]["robust_accuracy"] is None
    assert content["results"]["distances"]["median"] is None
    assert content["results"]["stages"][0]["median"] is None
    assert Store.open(tmp_path / "run").run["results"] == found.results
    assert found.median_distance == math.inf
    assert "median distance inf" in found.table()
    assert "median distance inf" in repr(found)


def test_the_table_tells_each_attack_and_the_median(model: Plane, data: Any) -> None:
    found = run(model, data)
    lines = found.table().splitlines()
    assert lines[0].split() == (
        ["stage", "asked", "found", "smallest", "median", "distance", "forwards/sample", "backwards/sample", "seconds"]
    )
    for line, stage in zip(lines[1:3], found.results["stages"], strict=True):
        cells = line.split()
        assert cells[:4] == [stage["name"], "54", "54", f"{stage['smallest'] / 54:.1%}"]
        assert float(cells[4]) == pytest.approx(stage["median"], rel=1e-3)
    numbers = found.results["distances"]
    assert lines[3].startswith("clean accuracy  90.0%")
    assert lines[4].startswith(f"median distance {numbers['median']:.4g}  (95 % interval {numbers['low']:.4g} to")
    first, third = numbers["quartiles"]
    assert lines[4].endswith(f"; quartiles {first:.4g} and {third:.4g})")


# ---------------------------------------------------------------- remarks and mistakes


def test_attacks_that_disagree_are_told(model: Plane, data: Any) -> None:
    assert [flag.code for flag in run(model, data).flags] == ["attacks-disagree"]
    sure = run(model, data, suite=[*TWO, ("sure", Ray(threat=LINF))])
    assert sure.flags == []


@final
@dataclass(frozen=True, kw_only=True)
class Oblique(Attack):
    """A ray without gradients: the classes differ along a direction that it is told."""

    threat: Threat
    access: ClassVar[Access] = Access.SCORES

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        plane = Plane()
        normal = (plane.weight[1] - plane.weight[0]).detach().sign()
        for length in torch.linspace(0.1, 3.0, 30).tolist():
            oracle.judge(torch.zeros_like(x) + normal * length)
            oracle.judge(torch.zeros_like(x) - normal * length)
        return torch.zeros_like(x)


def test_an_attack_without_gradients_that_comes_nearer_is_told(model: Plane, data: Any) -> None:
    suite = [("ray", Ray(threat=LINF, lazy=1.0)), ("oblique", Oblique(threat=LINF))]
    flags = {flag.code: flag.message for flag in run(model, data, suite=suite).flags}
    assert "oblique, which uses no gradients, came nearer" in flags["black-box-beats-white-box"]
    suite[0] = ("ray", Ray(threat=LINF))
    assert run(model, data, suite=suite).flags == []


@pytest.mark.parametrize(
    ("threat", "stages"),
    [
        (assay.Linf(), ["fmn", "pdpgd", "fab-t"]),
        (assay.L1(), ["fmn", "pdpgd", "fab-t"]),
        (assay.L2(), ["fmn", "pdpgd", "fab-t", "ddn"]),
        (assay.L0(), ["fmn", "pdpgd", "sigma-zero"]),
    ],
    ids=repr,
)
def test_the_suite_minimal_is_what_its_page_says(threat: Threat, stages: list[str]) -> None:
    suite = load_suite("minimal", threat)
    assert [stage.name for stage in suite.stages] == stages
    assert suite.foreign == ()
    assert [stage.name for stage in load_suite("minimal", threat.with_eps(1.0)).stages] == stages


def test_the_suite_minimal_is_run_where_none_is_named() -> None:
    found = assay.evaluate("digits-mlp", "digits", threat="linf", limit=4, progress=False)
    assert found.store.run["settings"]["suite"]["name"] == "minimal"
    assert [stage["broken"] for stage in found.results["stages"]] == [4, 4, 4]
    assert not {"not-found", "stage-skipped"} & {flag.code for flag in found.flags}
    inside = assay.evaluate(
        "digits-mlp", "digits", threat=f"linf:{2 * found.median_distance}", suite="minimal", limit=4, progress=False
    )
    assert inside.robust_accuracy == found.accuracy_at(2 * found.median_distance)
    assert inside.results["stages"][1]["asked"] < 4


def test_the_suite_is_chosen_by_the_threat() -> None:
    assert default_suite(assay.Linf()) == "minimal"
    assert default_suite(assay.L2(0.5)) == "standard"


@pytest.mark.parametrize("suite", ["standard", "quick"])
def test_a_suite_that_needs_a_budget_says_which_ways_there_are(suite: str) -> None:
    with pytest.raises(SettingError, match=r"needs a budget.*linf:0\.1.*suite minimal"):
        load_suite(suite, assay.Linf())


def test_suites_composed_for_each_threat(tmp_path: Path) -> None:
    stage = '[[stage]]\nname="p"\nthreats=["{}"]\nattack="PGD(threat=THREAT, steps={})"\n'
    text = 'name="m"\nversion=1\nper_threat=true\n' + stage.format("linf", 3) + stage.format("l2", 5)
    path = tmp_path / "m.toml"
    path.write_text(text)
    linf, l2 = assay.Linf(0.1), assay.L2(1.0)
    assert load_suite(path, linf).stages[0].attack == PGD(threat=linf, steps=3)
    assert load_suite(path, l2).stages[0].attack == PGD(threat=l2, steps=5)
    assert load_suite(path, linf).foreign == ()
    with pytest.raises(SettingError, match=r"suite 'm' has no attacks for L1\(3\.0\)"):
        load_suite(path, assay.L1(3.0))
    path.write_text(text.replace("true", "1"))
    with pytest.raises(SettingError, match="per_threat = 1; it has to be true or false"):
        load_suite(path, linf)
