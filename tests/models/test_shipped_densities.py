"""The shipped autoencoders and the shipped density are as good as their cards say, and small."""

from __future__ import annotations

import pytest
import torch

import assay
from assay.defenses import PixelDefend
from assay.models import load_model, zoo

NAMES = ("fashion-ae-1", "fashion-ae-2")


@pytest.fixture(scope="module")
def images():
    return assay.load_data("fashion-mnist", limit=200).batch(0, 200)[0]


@pytest.mark.parametrize("name", NAMES)
def test_autoencoders_find_images_again_and_nothing_else(name, images):
    model, card = load_model(name), zoo.card(name)["measured"]
    with torch.no_grad():
        error = float((model(images) - images).square().mean())
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
        assert float((model(noise) - noise).square().mean()) > 3 * error
    assert error == pytest.approx(card["squared_error"], rel=0.15)
    assert error < card["squared_error_of_the_mean_image"] / 5


def test_the_density_knows_images_from_others(images):
    model, card, images = load_model("fashion-pixelcnn"), zoo.card("fashion-pixelcnn")["measured"], images[:50]
    with torch.no_grad():
        bits = model.bits(images)
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 0.5
        noisy = model.bits((images + 0.1 * noise).clamp(0, 1))
    assert float(bits.mean()) == pytest.approx(card["bits_per_value"], rel=0.1)
    assert float(bits.mean()) < card["bits_per_value_of_a_histogram"] - 1
    assert bool((noisy > bits).all())
    assert bool((model.bits(images.flip(2))[:20] > bits[:20]).float().mean() > 0.9)  # upside down


def test_purified_images_are_likelier_and_nearer(images):
    x = images[:10]
    moved = (x + 16 / 255 * (torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.5)).clamp(0, 1)
    found = PixelDefend(eps=16).transform(moved)
    model = load_model("fashion-pixelcnn")
    with torch.no_grad():
        assert bool((model.bits(found) < model.bits(moved)).all())
    assert float((found - x).abs().mean()) < 0.8 * float((moved - x).abs().mean())
