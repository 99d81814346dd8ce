"""Numbers of queries, limits of them, and answers that are kept: checked by a model that counts for itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import assay
from assay import files
from assay.attacks import PGD, HopSkipJump, Square
from assay.errors import ModelError, QueriesSpent, SettingError
from assay.evaluation import Evaluation, Store, journal
from assay.evaluation.journal import Journal
from assay.evaluation.merge import COLUMNS
from assay.evaluation.queries import numbers, of_shards
from assay.evaluation.shards import Shard
from assay.evaluation.stats import wilson
from assay.models import Function, LabelsOnly, Metered
from assay.models.target import Target

LINF = assay.Linf(0.06)
SUITE = [("square", Square(threat=LINF, queries=80))]
N = 24


class Service(Target):
    """A linear model far away: it counts what it is asked about each input's sample, and can go away."""

    remote = True

    def __init__(self, access: str = "scores") -> None:
        super().__init__(access)
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(5, 12, generator=generator)
        self.asked = 0
        self.left = -1
        self.batch: int | None = None

    def answer(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise ModelError("the server is away")
        self.asked += len(x)
        scores = (x.flatten(1) - 0.5) @ self.weight.T
        return scores if self.access is assay.Access.SCORES else scores.argmax(dim=1)


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(N, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    y = Service()(x).argmax(dim=1)
    y[::9] = (y[::9] + 1) % 5
    return x, y


def run(model: Any, data: Any, **options: Any) -> Evaluation:
    return assay.evaluate(model, data, **{"threat": LINF, "suite": SUITE, "progress": False, "chunk": 8, **options})


@pytest.fixture(scope="module")
def whole(data: Any) -> tuple[Evaluation, int]:
    """An unbroken run, and what it asked."""
    service = Service()
    return run(service, data), service.asked


def same(first: Evaluation, second: Evaluation) -> None:
    for name in COLUMNS:
        assert torch.equal(getattr(first.samples, name), getattr(second.samples, name)), name


def test_numbers_by_hand() -> None:
    spent = torch.tensor([90, 100, 101, 1000, 5000])
    success = torch.tensor([True, True, True, False, True])
    found = numbers(spent, success, None)
    assert (found["median"], found["mean"]) == (100.5, 5291 / 4)
    assert found["at"]["success"] == [0.4, 0.6, 0.8]
    assert [found["at"]["low"][0], found["at"]["high"][0]] == list(wilson(2, 5))
    assert found["curve"]["queries"] == [1, 90, 100, 101, 5000]
    assert found["curve"]["success"] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert numbers(spent, success, 1000)["at"]["success"] == [0.4, 0.6, None]
    none = numbers(spent, torch.zeros(5, dtype=torch.bool), None)
    assert (none["median"], none["mean"], none["curve"]["queries"]) == (None, None, [1, 5000])


def test_a_long_curve_keeps_its_ends() -> None:
    spent = torch.arange(2, 3002)
    found = numbers(spent, torch.ones(3000, dtype=torch.bool), None)["curve"]
    assert len(found["queries"]) <= 258
    assert (found["queries"][0], found["queries"][-1]) == (1, 3001)
    assert (found["success"][0], found["success"][-1]) == (0.0, 1.0)


def shard(forwards: list[int], success: list[int], *, backwards: int = 0, partial: bool = False) -> Shard:
    columns = {
        "index": torch.arange(len(forwards)),
        "forwards": torch.tensor(forwards, dtype=torch.int32),
        "backwards": torch.full((len(forwards),), backwards, dtype=torch.int32),
        "success": torch.tensor(success, dtype=torch.uint8),
    }
    return Shard(stage="s", start=0, stop=len(forwards), columns=columns, partial=partial)


def test_which_stages_have_queries() -> None:
    found = of_shards([shard([9, 99], [1, 0]), shard([49], [1])], None)
    assert found is not None
    assert (found["median"], found["at"]["success"]) == (30.0, [2 / 3] * 3)
    assert of_shards([shard([9], [1], backwards=2)], None) is None
    assert of_shards([shard([], [])], None) is None


def test_beyond_a_cut_search_nothing_is_known() -> None:
    found = of_shards([shard([9, 500], [1, 0]), shard([199, 9], [0, 1], partial=True)], None)
    assert found is not None
    assert found["at"]["success"] == [0.5, None, None]


def test_the_clean_answer_counts_and_the_limit_is_kept(data: Any, whole: tuple[Evaluation, int]) -> None:
    service = Service()
    found = run(service, data, max_queries=20)
    spent = found.store.read_shard("square", 0).columns["forwards"] + 1
    assert int(spent.max()) == 20
    assert service.asked <= 20 * N + 32 * 3
    full, part = whole[0].results["stages"][0], found.results["stages"][0]
    cheap = sum(
        int(((shard.columns["forwards"] < 20) & shard.columns["success"].bool()).sum())
        for shard in (whole[0].store.read_shard("square", start) for start, _ in whole[0].store.chunks)
    )
    assert (
        0 < part["broken"] == cheap < full["broken"]
    )  # the successes of a smaller budget are the first of a larger one's
    assert part["queries"]["at"]["success"][0] is None
    assert full["queries"]["at"]["success"][0] is not None
    assert found.store.run["settings"]["max_queries"] == 20


def test_a_run_tells_what_its_model_was_asked(whole: tuple[Evaluation, int]) -> None:
    assert whole[0].store.run["queries"] == {"total": None, "spent": whole[1]}


@pytest.mark.parametrize("access", ["scores", "labels"])
def test_a_total_stops_and_goes_on(tmp_path: Path, data: Any, access: str) -> None:
    threat = LINF if access == "scores" else assay.Linf(0.2)
    attacks = SUITE if access == "scores" else [("hsj", HopSkipJump(threat=threat, steps=1))]
    reference = Service(access)
    unbroken = run(reference, data, threat=threat, suite=attacks)
    service, total = Service(access), reference.asked // 3
    found = run(service, data, threat=threat, suite=attacks, total_queries=total, out=tmp_path / "run")
    assert total // 2 < service.asked <= total
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (state["state"], state["queries"]) == ("stopped", {"total": total, "spent": service.asked})
    assert [flag.code for flag in found.flags] == ["queries-spent"]
    assert unbroken.robust_accuracy < found.robust_accuracy < found.clean_accuracy  # what was found is kept
    assert (tmp_path / "run" / "report.html").exists()

    probes = reference.asked - sum(part["forwards"] for part in unbroken.results["stages"]) - N
    again = {"threat": threat, "suite": attacks, "out": tmp_path / "run", "resume": True}
    stopped = run(service, data, total_queries=(total := service.asked + probes + 1), **again)
    assert stopped.store.run["state"] == "stopped"  # hardly larger in truth: nothing is lost either
    same(stopped, found)
    assert total - 1 <= service.asked <= total
    done = run(service, data, **again)
    assert done.store.run["state"] == "done"
    same(done, unbroken)
    assert service.asked <= reference.asked + 2 * probes + 1  # no answer was asked for twice
    assert done.store.run["queries"]["spent"] == service.asked
    assert not (tmp_path / "run" / "answers").exists()


@pytest.mark.parametrize("more", [0, N, N + 5])
def test_a_total_holds_however_often_a_run_goes_on(tmp_path: Path, data: Any, more: int) -> None:
    """The look at the first samples counts; where the total does not reach for it, the run stays as it was."""
    service = Service()
    found = run(service, data, total_queries=200, out=tmp_path / "run")
    total = service.asked + more
    for _ in range(3):
        with pytest.raises(QueriesSpent, match="--total-queries"):
            run(service, data, total_queries=total, out=tmp_path / "run", resume=True)
        assert service.asked <= total
    state = Store.open(tmp_path / "run").run
    assert (state["state"], state["queries"]["spent"]) == ("stopped", service.asked)
    assert state["results"] == found.results
    assert (tmp_path / "run" / "report.html").exists()


def test_answers_of_a_question_that_failed_in_its_middle_are_kept(tmp_path: Path) -> None:
    """A model that sends requests of at most 4 inputs: what the first two answered is not asked again."""
    service, x = Service(), torch.rand(11, 12)
    service.batch, service.left = 4, 3
    with pytest.raises(ModelError), Journal(LabelsOnly(service), tmp_path / "j", "run") as first:
        first(x)
    assert service.asked == journal.count(tmp_path / "j", "run") == 8
    with Journal(LabelsOnly(service), tmp_path / "j", "run") as second:
        assert torch.equal(second(x), service(x).argmax(dim=1))
    assert service.asked == 11 + 11


def test_an_attack_returns_what_it_found_within_a_total(data: Any) -> None:
    x, y = data
    attack = PGD(threat=LINF, steps=20)
    weight = Service().weight
    model = Metered(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5)), 3 * N)
    model.model[1].weight.data = weight
    model.model[1].bias.data = -0.5 * weight.sum(dim=1)
    found = attack(model, x, y)
    assert model.exhausted
    assert model.spent <= 3 * N
    assert 0 < int((found.success & (found.distance > 0)).sum()) < N
    with pytest.raises(QueriesSpent, match="does not reach"):
        attack(model, x, y)
    with pytest.raises(SettingError, match="at least 1"):
        Metered(model, 0)


def test_a_total_that_does_not_reach_for_the_clean_inputs(tmp_path: Path, data: Any) -> None:
    with pytest.raises(QueriesSpent, match="--total-queries"):
        run(Service(), data, total_queries=N, out=tmp_path / "run")


@pytest.mark.parametrize("options", [{"max_queries": 1}, {"total_queries": 0}])
def test_limits_that_cannot_be(data: Any, options: Any) -> None:
    with pytest.raises(SettingError, match="at least"):
        run(Service(), data, **options)


@pytest.mark.parametrize("call", [4, 9, 40, 150])
def test_a_server_that_goes_away_costs_nothing(
    tmp_path: Path, data: Any, whole: tuple[Evaluation, int], call: int
) -> None:
    service = Service()
    service.left = call
    with pytest.raises(ModelError, match="away"):
        run(service, data, out=tmp_path / "run")
    before = service.asked
    assert Store.open(tmp_path / "run").run["state"] == "interrupted"
    done = run(service, data, out=tmp_path / "run", resume=True)
    same(done, whole[0])
    assert service.asked == whole[1] + 2 * min(N, 32) + 2  # the checks before the first attack look again
    assert done.store.run["queries"]["spent"] == service.asked
    assert before < service.asked


def test_answers_are_given_once_and_in_their_order(tmp_path: Path) -> None:
    count = iter(range(100))
    model = Function(lambda x: x.new_tensor([[next(count), 0.0] for _ in x]), takes="torch")
    x, y = torch.rand(3, 4), torch.rand(2, 4)
    with Journal(model, tmp_path / "j", "run") as first:
        told = [first(x), first(torch.cat([y, x[:1]]))]
    assert journal.count(tmp_path / "j", "run") == 6
    with Journal(model, tmp_path / "j", "run") as second:
        assert torch.equal(second(x), told[0])
        assert torch.equal(second(x[:1]), told[1][2:])  # asked twice, answered twice
        assert second(torch.cat([x[:1], y]))[:, 0].tolist() == [6.0, 3.0, 4.0]
    assert journal.count(tmp_path / "j", "run") == 7


@pytest.mark.parametrize("cut", [1, 23])
def test_an_answer_that_was_cut_short_is_asked_again(tmp_path: Path, cut: int) -> None:
    path, x = tmp_path / "j", torch.rand(3, 4)
    service = Function(lambda x: x.argmax(dim=1), access="labels", takes="torch")
    with Journal(service, path, "run") as first:
        first(x)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(service, path, "run") as second:
        assert torch.equal(second(x), service(x))
    assert journal.count(path, "run") == 3


@pytest.mark.parametrize("content", [b"", b"no json\n123", b'{"run": "other", "dtype": "int64", "shape": []}\n'])
def test_a_journal_of_something_else_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path, x = tmp_path / "j", torch.rand(3, 4)
    path.write_bytes(content)
    with Journal(LabelsOnly(torch.nn.Linear(4, 3)), path, "run") as found:
        found(x)
    assert journal.count(path, "run") == 3
