"""The shipped generators of Defense-GAN and APE-GAN are as good as their cards say, and small."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import assay
from assay.defenses import APEGANDefense, DefenseGAN
from assay.models import load_model, zoo


def images(n):
    return assay.load_data("fashion-mnist", limit=n).batch(0, n)


def right(x, y):
    with torch.no_grad():
        return float((load_model("fashion-cnn")(x).argmax(dim=1) == y).double().mean())


def test_the_search_finds_test_images_again_and_they_are_still_recognised():
    x, y, _ = images(200)
    card = zoo.card("fashion-wgan-gp")["measured"]
    defense = DefenseGAN("fashion-wgan-gp", restarts=5, steps=100)
    torch.manual_seed(0)
    shown = defense.transform(x)
    left = float((shown - x).square().mean())
    assert left == pytest.approx(card["squared_error"], rel=0.25)  # of fewer images, by a shorter search
    assert left < card["squared_error_of_the_best_start"] / 3
    assert left < card["squared_error_of_the_mean_image"] / 3
    assert right(shown, y) > card["accuracy_of_fashion_cnn_on_reconstructions"] - 0.08
    other = 1 - x  # is nothing that the generator makes
    assert float((defense.transform(other[:20]) - other[:20]).square().mean()) > 3 * left


def test_adversarial_images_are_cleaned_and_clean_ones_kept():
    x, y, _ = images(300)
    card = zoo.card("fashion-ape-gan")["measured"]
    moved = assay.attacks.FGSM(threat=assay.Linf(0.1)).perturb(load_model("fashion-cnn"), x, y)
    defense = APEGANDefense("fashion-ape-gan")
    with torch.no_grad():
        back = defense.transform(moved)
        kept = defense.transform(x)
    assert float((back - x).square().mean()) < 0.6 * float((moved - x).square().mean())
    assert right(back, y) > right(moved, y) + 0.25
    assert right(back, y) == pytest.approx(card["accuracy_under_fgsm_cleaned"], abs=0.08)
    assert right(kept, y) > right(x, y) - 0.04


def test_the_example_draws_them(tmp_path, monkeypatch):
    file, out = Path(__file__).parents[2] / "examples" / "purifiers.py", tmp_path / "sheet.png"
    arguments = ["--out", str(out), "--images", "2", "--restarts", "1", "--steps", "5"]
    monkeypatch.setattr(sys, "argv", [str(file), *arguments])
    runpy.run_path(str(file), run_name="__main__")
    page = np.asarray(Image.open(out))
    assert page.shape == (6 * 64, 2 * 60 + 4)
    assert len(np.unique(page)) > 50
