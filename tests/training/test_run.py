"""A run that is stopped anywhere and taken up again ends like one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

import assay
from assay import train
from assay.attacks import FGSM
from assay.errors import SettingError, StoreError
from assay.models import saved
from assay.training import run as module
from assay.training.augmentation import Crop, Cutout, Flip, Mixup
from assay.training.averaging import EMA, SWA
from assay.training.optimizers import SGD, Adam
from assay.training.recipes import AWP, PGDAT, TRADES, FreeAT

LINF = assay.Linf(0.1)
WAYS = {
    "ema": {
        "recipe": PGDAT(threat=LINF, steps=2),
        "average": EMA(decay=0.9),
        "augment": (Crop(padding=1), Flip(), Cutout(side=2), Mixup()),
        "warmup": 1.5,
    },
    "swa": {
        "recipe": AWP(recipe=TRADES(attack=FGSM(threat=LINF), beta=6.0), gamma=0.05),
        "average": SWA(start_at=0.3),
        "optimizer": SGD(lr=0.05),
        "clip": 1.0,
        "label_smoothing": 0.1,
    },
    "free": {"recipe": FreeAT(threat=LINF, replays=3), "average": EMA(), "keep": "last"},
}


class Blown(Exception):
    """The accident."""


class Fuse:
    """Lets a network answer so many times, and then does something."""

    def __init__(self, model, calls, then):
        self.left, self.then = calls, then
        model.register_forward_pre_hook(self)

    def __call__(self, *_):
        self.left -= 1
        if self.left == 0:
            self.then()


def blow():
    raise Blown


@pytest.fixture(scope="module")
def unbroken(samples, network, quick, tmp_path_factory):
    """The folder of a run that nothing happened to, and how often its network was asked."""
    known = {}

    def run(way):
        if way not in known:
            out, model, calls = tmp_path_factory.mktemp(way) / "run", network(), []
            model.register_forward_pre_hook(lambda *_: calls.append(1))
            quick(model, samples(), out=out, **WAYS[way])
            known[way] = out, len(calls)
        return known[way]

    return run


@pytest.fixture
def always_saved(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(module, "_EVERY", -1.0)


@pytest.mark.parametrize("way", WAYS)
def test_stopped_again_and_again_within_steps(
    way, unbroken, samples, network, quick, tmp_path, always_saved, checkpoint, identical
):
    out, expected = tmp_path / "run", unbroken(way)
    attempts = 0
    for attempts in range(1, 60):
        model = network()
        Fuse(model, expected[1] // 5 + attempts, blow)
        torch.rand(attempts)  # what others draw has no part in it
        try:
            quick(model, samples(), out=out, resume=True, **WAYS[way])
            break
        except Blown:
            assert json.loads((out / "train.json").read_text())["state"] == "running"
    assert attempts > 3
    identical(checkpoint(out), checkpoint(expected[0]))
    identical(saved.weights(out), saved.weights(expected[0]))
    assert json.loads((out / "train.json").read_text())["state"] == "done"


def test_stopped_between_the_first_steps_starts_from_the_same_weights(samples, network, quick, tmp_path):
    model = network()
    Fuse(model, 3, blow)
    with pytest.raises(Blown):
        quick(model, samples(), out=tmp_path / "run")
    other = network()
    torch.nn.init.zeros_(other.head.weight)  # the checkpoint's weights count
    expected = quick(network(), samples())
    done = quick(other, samples(), out=tmp_path / "run", resume=True)
    assert all(torch.equal(p, q) for p, q in zip(done.model.parameters(), expected.model.parameters(), strict=True))


KILLED = """
import os, signal
import assay
from assay.models.networks import DigitsMLP
from assay.training import run

run._EVERY = -1.0
left, answer = [30], DigitsMLP.forward

def forward(model, x):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(model, x)

DigitsMLP.forward = forward
assay.train("DigitsMLP()", "digits", out={out!r}, **{settings!r})
"""


def test_killed(tmp_path, checkpoint, identical):
    settings = {"recipe": "freeat", "threat": "linf:0.1", "epochs": 2, "batch": 16, "limit": 100, "progress": False}
    script = KILLED.format(out=str(tmp_path / "run"), settings=settings)
    threads = str(torch.get_num_threads())
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": threads}, timeout=200)
    assert done.returncode == -signal.SIGKILL
    assert checkpoint(tmp_path / "run")["progress"]["step"] == 3  # the fourth step was under way
    for name in ("run", "unbroken"):
        train("DigitsMLP()", "digits", out=tmp_path / name, resume=True, **settings)
    identical(checkpoint(tmp_path / "run"), checkpoint(tmp_path / "unbroken"))


@pytest.fixture
def heard():
    """Ctrl-C as a terminal sends it, also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("step", [0, 2, 3, 7])  # the first of the run, the last ones of both epochs
def test_ctrl_c_keeps_the_present_step(step, unbroken, samples, network, quick, tmp_path, checkpoint, identical):
    out, (expected, _) = tmp_path / "run", unbroken("free")
    model = network()
    measuring = 11 if step > 3 else 0
    Fuse(model, 2 + 3 * step + measuring, lambda: signal.raise_signal(signal.SIGINT))  # after two to try the data
    if step == 7:  # nothing is left to stop
        quick(model, samples(), out=out, **WAYS["free"])
    else:
        with pytest.raises(KeyboardInterrupt):
            quick(model, samples(), out=out, **WAYS["free"])
        assert checkpoint(out)["progress"]["step"] == step + 1
        assert json.loads((out / "train.json").read_text())["state"] == "interrupted"
        quick(network(), samples(), out=out, resume=True, **WAYS["free"])
    identical(checkpoint(out), checkpoint(expected))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("heard")
def test_the_second_ctrl_c_ends_at_once(unbroken, samples, network, quick, tmp_path, checkpoint, identical):
    out, (expected, _) = tmp_path / "run", unbroken("free")

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    model = network()
    Fuse(model, 6, twice)  # in the second step, after one of its three updates
    with pytest.raises(KeyboardInterrupt):
        quick(model, samples(), out=out, **WAYS["free"])
    assert checkpoint(out)["progress"]["step"] == 0  # no step is kept by halves
    quick(network(), samples(), out=out, resume=True, **WAYS["free"])
    identical(checkpoint(out), checkpoint(expected))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:2000] + bytes([b[2000] ^ 1]) + b[2001:]])
def test_a_damaged_checkpoint_is_told_and_set_aside(damage, samples, network, quick, tmp_path):
    expected = quick(network(), samples(), out=tmp_path)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(StoreError, match=r"damaged.*set aside as checkpoint\.pt\.corrupt-.*--resume"):
        quick(network(), samples(), out=tmp_path, resume=True)
    assert not file.exists()
    assert len(list(tmp_path.glob("checkpoint.pt.corrupt-*"))) == 1
    assert saved.weights(tmp_path)
    again = quick(network(), samples(), out=tmp_path, resume=True)
    assert all(torch.equal(p, q) for p, q in zip(again.model.parameters(), expected.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"epochs": 3}, "epochs: 2 -> 3"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"recipe": "trades", "threat": LINF}, 'recipe: "Standard'),
        ({"optimizer": Adam(lr=0.01)}, "optimizer: .*AdamW.* -> .*Adam"),
        ({"augment": (Flip(),)}, "augment:"),
        ({"validation": 9}, "validation: 7 -> 9"),
        ({"limit": 70}, "data_digest:"),
    ],
)
def test_other_settings_are_named(changed, says, done, samples, network, quick):
    with pytest.raises(SettingError, match=says):
        quick(network(), samples(), out=done, resume=True, **changed)


def test_another_network_is_noticed(done, samples, network, quick):
    class Network(torch.nn.Sequential):
        pass

    small = Network(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    with pytest.raises(SettingError, match="parameters: 99 -> 51"):
        quick(small, samples(), out=done, resume=True)
    swapped = Network(torch.nn.Flatten(), torch.nn.Linear(16, 3), torch.nn.Linear(3, 12))
    assert sum(p.numel() for p in swapped.parameters()) == 99
    with pytest.raises((SettingError, assay.errors.InputError, assay.errors.ModelError)):
        quick(swapped, samples(), out=done, resume=True)


@pytest.fixture(scope="module")
def done(samples, network, quick, tmp_path_factory):
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("runs") / "done"
    quick(network(), samples(), out=out)
    return out


def test_what_has_no_influence_is_not_compared(done, samples, network, quick, checkpoint, identical):
    before = checkpoint(done)
    again = quick(
        network(), samples(), out=done, resume=True, device="cpu", optimizer="adamw", schedule="cyclic", validation=7
    )
    assert len(again.history) == 2
    identical(checkpoint(done), before)


def test_where_ctrl_c_is_ignored_it_stays_so(samples, network, quick):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        model = network()
        Fuse(model, 3, lambda: signal.raise_signal(signal.SIGINT))
        assert len(quick(model, samples(), **WAYS["free"]).history) == 2
    finally:
        signal.signal(signal.SIGINT, before)
