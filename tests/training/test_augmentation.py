"""Augmentation: slow loops beside the batched arithmetic, and draws that know of no batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from assay import grammar, registry
from assay.errors import InputError, SettingError
from assay.rng import Keyed
from assay.training.augmentation import Augmentation, Crop, Cutout, Flip, ImageAugmentation, Mixup
from assay.training.mixing import beta, permutation

B, C, H, W = 24, 3, 7, 9
ON_IMAGES = [Crop(padding=2), Flip(), Cutout(side=3), Cutout(side=4, fill=0.0)]
INDEX = torch.arange(B) * 7 + 3


def images(dtype=torch.float64):
    x = torch.rand(B, C, H, W, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x * 0.8 + 0.1  # neither black nor white


def labels():
    return torch.arange(B) % 5


def run(part, x=None, *, index=INDEX, y=None, targets=None, seed=0):
    x, y = images() if x is None else x, labels() if y is None else y
    return part(x, y, targets, Keyed(seed, index, dtype=torch.float64), classes=5)


# ---------------------------------------------------------------- slow loops


def test_crop_is_a_window_of_the_padded_image():
    x = images()
    moved, _ = run(Crop(padding=2))
    offsets = Keyed(0, INDEX).integers(0, 5, 2).tolist()
    for row, (top, left) in enumerate(offsets):
        for i in range(H):
            for j in range(W):
                a, b = i + top - 2, j + left - 2
                inside = 0 <= a < H and 0 <= b < W
                expected = x[row, :, a, b] if inside else torch.zeros(C, dtype=x.dtype)
                assert torch.equal(moved[row, :, i, j], expected)


def test_crop_reaches_every_offset_evenly():
    x = torch.ones(5000, 1, 3, 3)
    moved, _ = Crop(padding=1)(x, torch.zeros(5000, dtype=torch.int64), None, Keyed(0, torch.arange(5000)), classes=1)
    kept = moved.flatten(1).sum(1)
    shares = [float((kept == count).float().mean()) for count in (9, 6, 4)]
    assert shares == pytest.approx([1 / 9, 4 / 9, 4 / 9], abs=0.03)


def test_flip_mirrors_rows():
    x = images()
    moved, _ = run(Flip())
    mirrored = 0
    for row in range(B):
        other = torch.stack([x[row, :, :, W - 1 - j] for j in range(W)], dim=2)
        same = torch.equal(moved[row], x[row])
        assert same or torch.equal(moved[row], other)
        mirrored += not same
    assert 4 < mirrored < 20
    assert torch.equal(run(Flip(probability=0.0))[0], x)
    assert torch.equal(run(Flip(probability=1.0))[0], x.flip(3))


@pytest.mark.parametrize(("side", "fill"), [(3, 0.5), (4, 0.0), (20, 1.0)])
def test_cutout_fills_a_square_around_a_pixel(side, fill):
    x = images()
    moved, _ = run(Cutout(side=side, fill=fill))
    rng = Keyed(0, INDEX)
    rows, columns = rng.integers(0, H, 1)[:, 0].tolist(), rng.integers(0, W, 1)[:, 0].tolist()
    for row in range(B):
        expected = x[row].clone()
        for i in range(H):
            for j in range(W):
                first, second = i - (rows[row] - side // 2), j - (columns[row] - side // 2)
                if 0 <= first < side and 0 <= second < side:
                    expected[:, i, j] = fill
        assert torch.equal(moved[row], expected)
    assert all((moved[row] != x[row]).any() for row in range(B))


def test_mixup_of_pairs_in_a_circle():
    x, y = images(), labels()
    mixed, targets = run(Mixup(alpha=0.7))
    rng = Keyed(0, INDEX, dtype=torch.float64)
    drawn = beta(rng, 0.7)
    circle = permutation(rng).tolist()
    for place, row in enumerate(circle):
        partner = circle[(place + 1) % B]
        share = max(float(drawn[row]), 1 - float(drawn[row]))
        torch.testing.assert_close(mixed[row], share * x[row] + (1 - share) * x[partner])
        expected = torch.zeros(5, dtype=x.dtype)
        expected[y[row]] += share
        expected[y[partner]] += 1 - share
        torch.testing.assert_close(targets[row], expected)
    assert sorted(circle) == list(range(B))


def test_mixed_targets_are_probabilities_and_the_own_label_has_the_larger_share():
    y = torch.arange(B)
    x = F.one_hot(y, B).double()
    mixed, targets = Mixup()(x, y, None, Keyed(0, INDEX, dtype=torch.float64), classes=B)
    torch.testing.assert_close(targets.sum(1), torch.ones(B, dtype=torch.float64))
    assert torch.equal(targets.argmax(1), y)
    torch.testing.assert_close(mixed, targets)
    assert ((targets > 0).sum(1) == 2).all()  # nobody is mixed with itself
    assert ((targets > 0).sum(0) == 2).all()  # everybody is a partner once


def test_mixup_goes_on_from_targets():
    given = torch.softmax(torch.randn(B, 5, generator=torch.Generator().manual_seed(2)), 1).double()
    _, plain = run(Mixup())
    _, targets = run(Mixup(), targets=F.one_hot(labels(), 5).double())
    torch.testing.assert_close(targets, plain)
    _, others = run(Mixup(), targets=given)
    assert not torch.allclose(others, plain)
    torch.testing.assert_close(others.mean(), given.mean())


# ---------------------------------------------------------------- what all promise


@pytest.mark.parametrize("part", ON_IMAGES)
@pytest.mark.parametrize("rows", [[5], [3, 1, 2], list(range(B - 1, -1, -1))])
def test_draws_are_a_samples_own_in_any_batch(part, rows):
    whole, _ = run(part)
    some, _ = run(part, images()[rows], index=INDEX[rows], y=labels()[rows])
    assert torch.equal(some, whole[rows])


def test_mixup_does_not_depend_on_the_order_of_the_batch():
    order = torch.randperm(B, generator=torch.Generator().manual_seed(3))
    whole, targets = run(Mixup())
    some, others = run(Mixup(), images()[order], index=INDEX[order], y=labels()[order])
    torch.testing.assert_close(some, whole[order])
    torch.testing.assert_close(others, targets[order])


@pytest.mark.parametrize("part", [*ON_IMAGES, Mixup()])
def test_other_seeds_change_other_things(part):
    assert not torch.equal(run(part)[0], run(part, seed=1)[0])
    assert torch.equal(run(part)[0], run(part)[0])
    assert not torch.equal(run(part)[0], images())


@pytest.mark.parametrize("part", [*ON_IMAGES, Mixup()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_type_layout_and_range_are_kept_and_the_given_left_alone(part, dtype):
    x = images(dtype)
    before = x.clone()
    plain, _ = run(part, x)
    assert (plain.dtype, plain.shape) == (dtype, x.shape)
    assert plain.is_contiguous()
    assert bool(((plain >= 0) & (plain <= 1)).all())
    last, _ = run(part, x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, plain)
    assert torch.equal(x, before)


@pytest.mark.parametrize("part", ON_IMAGES)
def test_targets_pass_changes_of_images(part):
    given = torch.rand(B, 5)
    assert run(part)[1] is None
    assert run(part, targets=given)[1] is given


@pytest.mark.parametrize("part", ON_IMAGES)
def test_what_is_no_image_is_refused(part):
    with pytest.raises(InputError, match=rf"{type(part).__name__} is for images"):
        run(part, torch.rand(B, 10))


def test_mixup_takes_any_inputs():
    assert run(Mixup(), torch.rand(B, 4, dtype=torch.float64))[0].shape == (B, 4)


@pytest.mark.parametrize("name", registry.names("augmentation"))
def test_the_repr_builds_it_again(name):
    part = grammar.named(name, Augmentation)
    assert grammar.named(repr(part), Augmentation) == part


def test_every_augmentation_is_registered():
    found = {*Augmentation.__subclasses__(), *ImageAugmentation.__subclasses__()} - {ImageAugmentation}
    assert {each.__name__ for each in found} == set(registry.names("augmentation"))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Crop(padding=0), "padding of Crop"),
        (lambda: Crop(padding=1.5), "padding of Crop"),
        (lambda: Flip(probability=1.5), r"probability of Flip must be a number in \[0, 1\]; got 1.5"),
        (lambda: Cutout(side=0), "side of Cutout"),
        (lambda: Cutout(fill=2.0), "fill of Cutout"),
        (lambda: Mixup(alpha=0.0), r"alpha of Mixup must be a number in \(0, inf\)"),
    ],
)
def test_settings_out_of_range(build, words):
    with pytest.raises(SettingError, match=words):
        build()
