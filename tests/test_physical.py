"""What is left of adversarial images after the camera: exact counts."""

from __future__ import annotations

import pytest
import torch

from assay import physical
from assay.errors import InputError, ModelError, SettingError
from assay.oracle import Access
from assay.physical import CAMERA, Photographed
from assay.transformations import Blur, Brightness, Noise


class Dark:
    """Class 0 below a mean of 0.5, class 1 above."""

    def __call__(self, x):
        return torch.stack([0.5 - x.flatten(1).mean(dim=1), x.flatten(1).mean(dim=1) - 0.5], dim=1)


def flat(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()


def test_counts_are_those_of_the_definition():
    dimmer = (Darker(),)
    # right and fooled for good, right and fooled until the camera, right and not fooled, wrong from the start, wrong
    # from the start and right once photographed, and a clean image that the camera turns over
    x = flat(0.3, 0.3, 0.3, 0.9, 0.9, 0.55)
    x_adv = flat(0.8, 0.55, 0.4, 0.2, 0.55, 0.45)
    y = torch.tensor([0, 0, 0, 0, 0, 1])
    found = physical.measure(Dark(), x, x_adv, y, dimmer)
    assert found == Photographed(
        samples=6, photos=1, clean_right=4, adversarial=3, destroyed=1, clean_photos_right=3, fooled=1
    )
    assert found.destruction_rate == pytest.approx(1 / 3)
    assert found.success_before == pytest.approx(3 / 4)
    assert found.success_after == pytest.approx(1 / 3)
    assert found.as_dict()["destruction_rate"] == found.destruction_rate


class Darker(Brightness):
    """A camera that always takes away 0.1."""

    def __init__(self):
        object.__setattr__(self, "strength", 0.1)

    def draw(self, rng, shape):
        return torch.full((len(rng.index),), -0.1)


def test_photographs_are_counted_one_by_one():
    camera = (Brightness(0.2),)
    x, x_adv, y = flat(0.2, 0.2), flat(0.6, 0.9), torch.tensor([0, 0])
    found = physical.measure(Dark(), x, x_adv, y, camera, photos=400, seed=1)
    taken = physical.photograph(x_adv, camera, photos=400, seed=1)
    right = int((taken.flatten(2).mean(dim=2) < 0.5).sum())
    assert abs(right - 100) < 40  # -0.2 to -0.1 of -0.2 to 0.2, for the first image only
    assert (found.adversarial, found.destroyed, found.fooled) == (2, right, 800 - right)
    assert found.destruction_rate == right / 800


def test_without_adversarial_images_there_is_no_rate():
    x = flat(0.2, 0.3)
    found = physical.measure(Dark(), x, x, torch.tensor([0, 0]))
    assert (found.success_before, found.success_after, found.destruction_rate) == (0.0, 0.0, None)
    wrong = physical.measure(Dark(), x, x, torch.tensor([1, 1]))
    assert (wrong.success_before, wrong.success_after) == (None, None)


def test_photographs_are_keyed_by_image_and_not_by_batch():
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([4, 9, 2, 70])
    taken = physical.photograph(x, photos=3, index=index, seed=2)
    alone = physical.photograph(x[2:3], photos=3, index=index[2:3], seed=2)
    assert torch.allclose(alone[0], taken[2], atol=1e-6)
    assert len({float(photo.sum()) for photo in taken[0]}) == 3
    assert not torch.allclose(physical.photograph(x, photos=3, index=index, seed=3), taken, atol=1e-3)
    y = torch.tensor([0, 1, 0, 1])
    counts = [physical.measure(Dark(), x, x.flip(0), y, photos=3, micro_batch=rows) for rows in (1, 2, 7, 64)]
    assert all(each == counts[0] for each in counts)


def test_no_two_images_or_photographs_share_numbers():
    index = torch.tensor([3, 3 + (1 << 32), 3 + (1 << 48), 4])
    taken = physical.photograph(flat(*[0.5] * 4), (Noise(0.01),), photos=6, index=index)
    first = taken[..., 0, 0]
    assert len(first.flatten().unique()) == 4 * 6


def test_clean_and_adversarial_images_are_photographed_alike():
    x = flat(0.3, 0.4)
    camera = (Noise(0.1),)
    clean, moved = (physical.photograph(each, camera, photos=2, seed=5) for each in (x, x + 0.1))
    assert torch.allclose(moved - clean, torch.full_like(clean, 0.1), atol=1e-6)


def test_counts_of_parts_add_up():
    generator = torch.Generator().manual_seed(1)
    x, x_adv = (torch.rand(6, 1, 8, 8, generator=generator) for _ in range(2))
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    whole = physical.measure(Dark(), x, x_adv, y, photos=4)
    parts = [
        physical.measure(Dark(), x[part], x_adv[part], y[part], photos=4, index=torch.arange(6)[part])
        for part in (slice(0, 2), slice(2, 6))
    ]
    assert parts[0] + parts[1] == whole
    with pytest.raises(SettingError, match="cannot be added"):
        whole + Photographed.nothing(3)


def test_the_camera_leaves_an_image_recognisable_but_not_the_same():
    down, right = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    x = torch.stack([0.2 + 0.6 * down, 0.8 - 0.5 * right, 0.5 * (down + right)])[None]
    taken = physical.photograph(x, CAMERA, photos=20)[0]
    error = (taken - x).abs().mean(dim=(1, 2, 3))
    assert 0.01 < float(error.mean()) < 0.08
    assert float(taken.min()) >= 0
    assert float(taken.max()) <= 1


def test_models_that_tell_labels_only_will_do():
    class Labels:
        access = Access.LABELS

        def __call__(self, x):
            return (x.flatten(1).mean(dim=1) > 0.5).long()

    x, x_adv, y = flat(0.3, 0.2), flat(0.7, 0.3), torch.tensor([0, 0])
    camera = (Blur(1.0),)
    assert physical.measure(Labels(), x, x_adv, y, camera) == physical.measure(Dark(), x, x_adv, y, camera)


def test_what_cannot_be_used_is_named():
    x, y = flat(0.2, 0.3), torch.tensor([0, 0])
    for wrong, error, message in (
        (lambda: physical.measure(Dark(), x, x[:1], y), InputError, "adversarial ones"),
        (lambda: physical.measure(Dark(), x, x, y[:1]), InputError, "one for each of 2 images"),
        (lambda: physical.measure(Dark(), x, x, y[:, None]), InputError, "one for each of 2 images"),
        (lambda: physical.measure(Dark(), x, x, y, photos=0), SettingError, "photos must be"),
        (lambda: physical.measure(Dark(), x, x, y, Blur(1)), SettingError, "list of transformations"),
        (lambda: physical.photograph(x, index=torch.tensor([1.0, 2.0])), InputError, "whole numbers"),
        (lambda: physical.photograph(torch.rand(4, 7)), InputError, "is for images"),
        (lambda: physical.measure(Dark(), x, x, y + 5), InputError, "labels run"),
        (lambda: physical.measure(lambda v: v[:, 0, 0] * torch.nan, x, x, y), ModelError, "NaN"),
        (lambda: physical.photograph(x, photos=0), SettingError, "photos must be"),
        (lambda: physical.photograph(x, (3,)), SettingError, "takes transformations"),
        (lambda: physical.photograph(x, index=torch.tensor([1])), InputError, "1 numbers for 2"),
        (lambda: physical.photograph(x * 9), InputError, "outside the bounds"),
    ):
        with pytest.raises(error, match=message):
            wrong()
