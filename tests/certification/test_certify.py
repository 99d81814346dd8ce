"""Certificates: binomial bounds, the closed form of a linear classifier, abstentions, keys, runs that go on."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import pytest
import torch
from scipy import stats
from torch import nn

import assay
from assay.certification import Smoothing
from assay.certification.binomial import at_least, fair_coin, lower_bound
from assay.errors import SettingError, StoreError

SIGMA = 0.5


@pytest.mark.parametrize(("count", "trials"), [(1, 10), (9, 10), (10, 10), (501, 1000), (990, 1000), (99_900, 100_000)])
def test_bounds_are_those_of_clopper_and_pearson(count, trials):
    assert lower_bound(count, trials, 0.001) == pytest.approx(
        stats.beta.ppf(0.001, count, trials - count + 1), rel=1e-9
    )
    assert at_least(count, trials, 0.7) == pytest.approx(stats.binom.sf(count - 1, trials, 0.7), rel=1e-8, abs=1e-12)
    assert fair_coin(count, trials) == pytest.approx(stats.binomtest(count, trials, 0.5).pvalue, rel=1e-8, abs=1e-12)


def test_nothing_is_known_of_a_count_of_zero():
    assert (lower_bound(0, 10, 0.01), fair_coin(0, 0), at_least(3, 2, 0.5)) == (0.0, 1.0, 0.0)


def linear(d=6):
    network = nn.Linear(d, 2).double()
    with torch.no_grad():
        network.weight.copy_(torch.randn(2, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
        network.bias.copy_(-network.weight.sum(dim=1) / 2)
    return network


def inputs(n, d=6):
    return torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def distances(network, x):
    """To the boundary, which is the largest radius that any certificate may have."""
    w, b = network.weight[1] - network.weight[0], network.bias[1] - network.bias[0]
    return ((x @ w + b).abs() / w.norm()).detach()


def test_radius_of_a_linear_classifier_is_its_distance_to_the_boundary():
    network, x, draws = linear(), inputs(40), 4000
    found = Smoothing(sigma=SIGMA, draws=draws, alpha=0.001).certificates(network, x, torch.arange(40))
    exact = distances(network, x)
    sure = found.prediction >= 0
    assert torch.equal(found.prediction[sure], network(x).argmax(dim=1)[sure])
    assert bool((found.radius <= exact)[sure].all())
    share = torch.tensor([NormalDist().cdf(float(r) / SIGMA) for r in exact], dtype=torch.float64)
    spread = (share * (1 - share) / draws).sqrt()
    low = share - 7 * spread - 7 / draws  # the bound lies 3.1 deviations below the count, which lies 4 around its mean
    least = torch.tensor([SIGMA * NormalDist().inv_cdf(float(p)) if p > 0.5 else 0.0 for p in low])
    assert bool((found.radius >= least)[sure].all())
    assert not bool(sure[share < 0.51].any())
    assert bool(sure[share > 0.56].all())
    assert sure.sum() >= 20


def test_the_radius_of_votes_without_dissent_is_the_largest_that_so_many_prove():
    x = torch.full((1, 4), 100.0)
    found = Smoothing(sigma=2.0, draws=500, alpha=0.01).certificates(
        lambda x: torch.stack([x.sum(1), -x.sum(1)], 1), x, torch.arange(1)
    )
    assert float(found.radius) == pytest.approx(2.0 * NormalDist().inv_cdf(0.01 ** (1 / 500)))
    assert (int(found.top), int(found.second)) == (500, 0)


def test_predictions_abstain_on_the_boundary():
    network = linear()
    w = (network.weight[1] - network.weight[0]).detach()
    x = torch.full((3, 6), 0.5, dtype=torch.float64) + torch.tensor([[-0.5], [0.0], [0.5]]) * (w / w.norm())
    found = Smoothing(sigma=SIGMA, draws=400).predictions(network, x, torch.arange(3))
    assert found.tolist() == [0, -1, 1]
    assert Smoothing(sigma=SIGMA, draws=400).certificates(network, x, torch.arange(3)).prediction.tolist() == [0, -1, 1]


def test_votes_are_keyed_by_sample_and_not_by_batch():
    network, x, smoothing = linear(), inputs(7), Smoothing(sigma=SIGMA, draws=300)
    index = torch.tensor([3, 11, 5, 0, 8, 2, 40])
    whole = smoothing.votes(network, x, index, 300, seed=4)
    assert whole.sum(dim=1).tolist() == [300] * 7
    assert torch.equal(smoothing.votes(network, x[2:4], index[2:4], 300, seed=4), whole[2:4])
    assert torch.equal(smoothing.votes(network, x.flip(0), index.flip(0), 300, seed=4), whole.flip(0))
    assert not torch.equal(smoothing.votes(network, x, index, 300, seed=5), whole)


def test_no_attack_succeeds_inside_a_certified_radius():
    """500 samples of a network that is not linear; the attack is judged by many votes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 3)).eval()
    with torch.no_grad():
        network[0].weight.mul_(6)
    x = torch.rand(500, 2)
    smoothing = Smoothing(sigma=0.2, draws=1000)
    found = smoothing.certificates(network, x, torch.arange(500))
    sure = (found.radius > 0.02).nonzero().squeeze(1)
    assert len(sure) > 300
    eps, own = found.radius[sure].float(), found.prediction[sure]
    model = assay.defend(network, assay.defenses.Smoothed(0.2, draws=8))
    attack = assay.attacks.PGD(threat=assay.threats.L2(eps, bounds=(-10, 10)), steps=5)
    moved = attack.perturb(model, x[sure], own, index=sure)
    assert bool(((moved - x[sure]).norm(dim=1) > 0.9 * eps).float().mean() > 0.9)  # it went as far as it may
    said = smoothing.predictions(network, moved, sure, seed=99)
    assert bool(((said == own) | (said == -1)).all())
    beyond = smoothing.predictions(network, x[sure] + (moved - x[sure]) * 4, sure, seed=99)
    assert int(((beyond != own) & (beyond >= 0)).sum()) > 20  # the same moves win where nothing is proven


def test_a_run_is_kept_and_goes_on(tmp_path):
    options = {"sigma": 0.1, "draws": 300, "limit": 30, "batch": 8}
    whole = assay.certify("digits-mlp", "digits", out=tmp_path / "c", **options)
    run = json.loads((tmp_path / "c" / "run.json").read_text())
    assert (run["kind"], run["state"], run["results"]) == ("certification", "done", whole.results)
    (tmp_path / "c" / "shards" / "00000008.safetensors").unlink()
    again = assay.certify("digits-mlp", "digits", out=tmp_path / "c", resume=True, **options)
    other = assay.certify("digits-mlp", "digits", **{**options, "batch": 30})
    assert torch.equal(again.radius, whole.radius)
    assert torch.equal(other.radius, whole.radius)
    assert whole.results["certified"][0]["value"] == whole.accuracy_at(0) == whole.results["accuracy"]["value"]
    assert 0 < whole.accuracy_at(0.19) < whole.accuracy_at(0)
    abstained = whole.results["abstained"]
    assert abstained["correct"] == int((whole.prediction == -1).sum())
    with pytest.raises(StoreError, match="sigma"):
        assay.certify("digits-mlp", "digits", out=tmp_path / "c", resume=True, **{**options, "sigma": 0.2})


@pytest.mark.parametrize(
    "wrong", [{"sigma": 0.0}, {"sigma": math.inf}, {"sigma": 1, "draws": 0}, {"sigma": 1, "alpha": 1.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        Smoothing(**wrong)
