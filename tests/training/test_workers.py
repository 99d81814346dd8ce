"""Two processes that train one network; they are started as people start them, by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import ClassVar

import pytest
import torch

from assay import train
from assay.errors import LostProcessError, SettingError
from assay.training.workers import Workers, _meet_again, norm

SETTINGS = {"epochs": 2, "batch": 16, "precision": "64-true", "device": "cpu", "progress": False}
RUNS = {
    "pgdat": {"recipe": "PGDAT(threat=Linf(0.1), steps=3)", "clip": 0.5, "label_smoothing": 0.1},
    "awp": {"recipe": "AWP(recipe=FGSMAT(threat=Linf(0.1)), gamma=0.1)", "average": "EMA(decay=0.8)"},
    "free": {"recipe": "FreeAT(threat=Linf(0.1), replays=2)", "augment": ["flip", "Crop(padding=1)"]},
}
SCRIPT = """
import hashlib, json, os, sys
from pathlib import Path
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
import assay

out, rank, hashes = Path({out!r}), os.environ["RANK"], []

def note(optimizer, *_):
    content = b"".join(p.detach().numpy().tobytes() for group in optimizer.param_groups for p in group["params"])
    hashes.append(hashlib.sha256(content).hexdigest())

register_optimizer_step_post_hook(note)
class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.unused, self.last = (nn.Linear(64, width) for width in (10, 10, 10, 10))

    def forward(self, x):
        x = x.flatten(1)
        found = self.first(x) if rank == "0" and self.training else self.second(x)
        return found + self.last(x)

found = {{}}
for name, settings in {runs!r}.items():
    hashes.clear()
    torch.manual_seed(int(rank))  # as different as they can be
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))
    if name == "norm":
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 10)
        )
    elif name == "branches":
        model = Branches()
    elif name == "digits":
        model = "DigitsMLP()"
    elif rank == "0":
        model.load_state_dict(torch.load(out / "start.pt"))
    done = assay.train(model, "digits", limit=100, out=out / name, **{settings!r} | settings)
    state = b"".join(value.numpy().tobytes() for value in done.model.state_dict().values())
    found[name] = {{"steps": list(hashes), "end": hashlib.sha256(state).hexdigest(), "rows": done.history}}
(out / f"{{rank}}.json").write_text(json.dumps(found))
os._exit(0)
"""


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(8)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 10))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes report, and their folder."""
    out = tmp_path_factory.mktemp("together")
    torch.save(mlp().state_dict(), out / "start.pt")
    runs = RUNS | {
        "norm": {"recipe": "trades", "threat": "linf:0.1", "precision": "32-true"},
        "branches": {"recipe": "AWP(recipe=PGDAT())", "threat": "linf:0.1"},
        "digits": {"recipe": "pgdat", "threat": "linf:0.1", "epochs": 3},
    }
    (out / "script.py").write_text(SCRIPT.format(out=str(out), runs=runs, settings=SETTINGS))
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(out / "script.py"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return out, [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", [*RUNS, "norm", "branches"])
def test_weights_are_the_same_after_every_step(name, together):
    _, (first, second) = together
    assert len(first[name]["steps"]) == (20 if name == "free" else 10)
    assert first[name]["steps"] == second[name]["steps"]
    assert len(set(first[name]["steps"])) == len(first[name]["steps"])
    assert first[name]["end"] == second[name]["end"]
    measured = [[(row["loss"], row["clean"], row["robust"]) for row in each[name]["rows"]] for each in (first, second)]
    assert measured[0] == measured[1]


@pytest.mark.parametrize("name", RUNS)
def test_one_process_with_the_same_batches_learns_the_same(name, together):
    out, reports = together
    done = train(mlp(), "digits", limit=100, **SETTINGS | RUNS[name])
    state = torch.load(out / name / "checkpoint.pt", weights_only=True)
    kept = state["progress"]["weights"]
    start = mlp().double().state_dict()
    for key, value in done.model.state_dict().items():
        torch.testing.assert_close(value, kept[key], rtol=1e-8, atol=1e-10)
        assert not torch.equal(value, start[key])
    for row, twin in zip(done.history, reports[0][name]["rows"], strict=True):
        assert row["loss"] == pytest.approx(twin["loss"], rel=1e-9)
        assert (row["clean"], row["robust"]) == (twin["clean"], twin["robust"])


def test_what_is_carried_on_comes_from_both(together):
    out, _ = together
    state = torch.load(out / "free" / "checkpoint.pt", weights_only=True)
    assert state["memory"]["delta"].shape == (16, 1, 8, 8)
    assert json.loads((out / "free" / "train.json").read_text())["environment"]["processes"] == 2


FRAGILE = """
import os, signal
from pathlib import Path
from assay.models.networks import DigitsMLP

class Fragile(DigitsMLP):
    left = 30

    def forward(self, x):
        Fragile.left -= 1
        marker = Path(__file__).with_name("killed")
        if Fragile.left == 0 and os.environ.get("RANK") == "1" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
"""


def test_a_killed_process_is_replaced_and_the_run_goes_on(tmp_path, together, checkpoint, identical):
    (tmp_path / "fragile.py").write_text(FRAGILE)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    line = "train fragile:Fragile --data digits --recipe pgdat --threat linf:0.1 --limit 100 --epochs 3 --batch 16"
    line += f" --precision 64-true --device cpu --devices 2 --out {tmp_path / 'run'}"
    command = [sys.executable, "-m", "assay", *line.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    said = " ".join(done.stderr.split())
    assert said.count("a process was killed (signal 9): on from the checkpoint") == 1
    assert said.count("kept epoch") == 1
    identical(checkpoint(tmp_path / "run"), checkpoint(together[0] / "digits"))


def test_alone_there_is_nobody_to_agree_with():
    workers = Workers("cpu")
    values = torch.tensor([1.0, 3.0])
    workers.average_all([values])
    assert values.tolist() == [1.0, 3.0]
    assert (workers.rank, workers.world, workers.total(2, 3)) == (0, 1, [2, 3])
    assert norm([torch.tensor([3.0]), torch.tensor([[4.0]])]) == 5
    with pytest.raises(SettingError, match="precision must be one of"):
        Workers("cpu", "16-mixed")


def test_processes_that_reach_different_parameters_average_each_with_its_own():
    class Group:
        """Two processes in turn: the first one's numbers are kept, the second one gets the mean with them."""

        kept: ClassVar[list] = []

        def all_reduce(self, flat, reduce_op):
            assert reduce_op == "mean"
            self.kept.append(flat)
            return flat if len(self.kept) == 1 else (self.kept[0] + flat) / 2

    models = []
    workers = Workers("cpu")
    workers.world, workers._fabric = 2, Group()
    for reached in ((0, 3), (1, 3)):
        model = torch.nn.ParameterList(torch.zeros(2, 2) for _ in range(5))
        model[4].requires_grad_(False)
        for place in reached:
            model[place].grad = torch.full((2, 2), 1.0 + place)
        workers.average(model)
        models.append(model)
    grads = [p.grad for p in models[1]]
    assert grads[2] is None  # nobody reached it: no optimizer shall move or decay it
    assert grads[4] is None
    assert [float(grad.mean()) for place, grad in enumerate(grads) if place in (0, 1, 3)] == [0.5, 1.0, 4.0]


def test_a_process_that_is_gone_is_named():
    def gone(*_, **__):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1\nmore")

    workers = Workers("cpu")
    workers.world, workers._fabric = 2, type("Fabric", (), {"all_reduce": gone, "barrier": gone})()
    for ask in (lambda: workers.average_all([torch.ones(1)]), lambda: workers.total(1.0), workers.wait):
        with pytest.raises(LostProcessError, match=r"another process of this run is gone.*--resume.*Connection"):
            ask()


@pytest.mark.parametrize(
    ("changed", "joins"),
    [
        ({}, True),
        ({"TORCHELASTIC_RESTART_COUNT": "0"}, False),  # nobody was there before
        ({"TORCHELASTIC_USE_AGENT_STORE": "False"}, False),  # the store is new
        ({"WORLD_SIZE": "4"}, False),  # several machines, which count restarts each for itself
    ],
)
def test_processes_started_anew_do_not_meet_those_that_fell(changed, joins, monkeypatch):
    environment = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1234",
        "TORCHELASTIC_RESTART_COUNT": "2",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    for name, value in (environment | changed).items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(torch.distributed, "TCPStore", lambda *where, is_master: (*where, is_master))
    monkeypatch.setattr(torch.distributed, "PrefixStore", lambda *parts: parts)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *which, **how: calls.append((which, how)))
    _meet_again("gloo")
    store = ("attempt 2", ("localhost", 1234, False))
    assert calls == ([(("gloo",), {"store": store, "rank": 1, "world_size": 2})] if joins else [])
