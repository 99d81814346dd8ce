"""What all corruptions share: shapes, range, keys, tables, texts."""

from __future__ import annotations

import pytest
import torch

from assay import grammar, registry
from assay.corruptions import Corruption, select
from assay.corruptions.severities import SEVERITIES, TABLES
from assay.errors import GrammarError, InputError, SettingError

EVERY = select("all")


def pictures(count=8, channels=3, height=32, width=32):
    """Smooth shapes, an edge and texture, in whole 255ths."""
    down, right = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    shift = torch.arange(count * channels).reshape(count, channels, 1, 1) * 0.7
    x = 0.5 + 0.3 * torch.sin(2 * right + shift) * torch.cos(3 * down + shift)
    x[:, :, height // 3 : height // 2, width // 4 :] += 0.25
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + 0.1 * noise).clamp(0, 1).mul(255).round() / 255


def test_every_corruption_has_both_tables_of_five():
    assert {kind.__name__ for kind in EVERY} == set(SEVERITIES)
    for own in SEVERITIES.values():
        assert {name: len(parameters) for name, parameters in own.items()} == dict.fromkeys(TABLES, 5)


def test_fifteen_are_common_and_four_extra():
    assert len(select("common")) == 15
    assert [kind.slug for kind in select("extra")] == ["speckle_noise", "gaussian_blur", "spatter", "saturate"]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.slug)
@pytest.mark.parametrize("table", TABLES)
def test_images_change_stay_in_range_and_are_whole_255ths(kind, table):
    x = pictures(4)
    before = x.clone()
    for severity in range(1, 6):
        found = kind(severity=severity, table=table)(x, seed=3)
        assert found.shape == x.shape
        assert found.dtype == x.dtype
        assert torch.equal(x, before)
        levels = found * 255
        assert float(levels.min()) >= 0
        assert float(levels.max()) <= 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
        assert not torch.equal(found, x)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.slug)
def test_the_same_image_for_any_batch_and_order(kind):
    x, numbers = pictures(9), torch.arange(9) * 7 + 2
    corrupt = kind(severity=4, table="imagenet")
    whole = corrupt(x, seed=5, index=numbers)
    for size in (1, 2, 5):
        parts = [corrupt(x[i : i + size], seed=5, index=numbers[i : i + size]) for i in range(0, 9, size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.tensor([4, 8, 0, 2, 1, 7, 3, 6, 5])
    assert torch.equal(corrupt(x[order], seed=5, index=numbers[order]), whole[order])


RANDOM = [kind for kind in EVERY if kind.__name__ not in (
    "DefocusBlur", "ZoomBlur", "Brighten", "LowContrast", "Pixelate", "JPEGCompression", "GaussianBlur", "Saturate"
)]  # fmt: skip


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.slug)
def test_seed_number_and_draw_decide_what_is_random(kind):
    x = pictures(1).expand(4, -1, -1, -1)
    corrupt = kind(severity=5, table="imagenet")
    found = corrupt(x)
    assert torch.equal(found, corrupt(x))
    others = [corrupt(x, seed=1)[0], found[1], corrupt(x, draw=1)[0]]
    assert all(torch.equal(other, found[0]) != (kind in RANDOM) for other in others)
    each = corrupt(x, index=torch.zeros(4, dtype=torch.int64), draw=torch.tensor([0, 1, 0, 2]))
    assert torch.equal(each[0], each[2])
    assert torch.equal(each[1], corrupt(x, draw=1)[0])


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.slug)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 7), (1, 5, 3), (3, 40, 66), (1, 28, 28), (3, 70, 130)], ids=str)
def test_any_size_grey_and_colour(kind, shape):
    x = pictures(2, *shape)
    for table in (*TABLES, None):
        found = kind(severity=5, table=table)(x)
        assert found.shape == x.shape
        assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.slug)
def test_float64_is_kept_and_an_empty_batch_is_none(kind):
    assert kind()(pictures(2).double()).dtype == torch.float64
    assert kind()(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.slug)
def test_a_corruption_is_written_as_the_call_that_builds_it(kind):
    for corrupt in (kind(), kind(severity=4), kind(2, table="cifar")):
        assert grammar.parse(repr(corrupt), Corruption) == corrupt
    assert registry.find("corruption", kind.slug).name == kind.__name__


def test_small_images_have_the_parameters_of_cifar():
    corrupt = select("gaussian_noise")[0](severity=2)
    assert corrupt.parameters((3, 64, 100)) == 0.06
    assert corrupt.parameters((3, 65, 100)) == 0.12


@pytest.mark.parametrize("text", ["GaussianNoise(severity=6)", "Fog(severity=0)", "Snow(table='mnist')"])
def test_settings_out_of_range_are_refused(text):
    with pytest.raises(GrammarError, match="has to be"):
        grammar.parse(text)


@pytest.mark.parametrize("severity", [True, 2.5, "3"])
def test_a_severity_is_a_whole_number(severity):
    with pytest.raises(SettingError, match="whole number from 1 to 5"):
        select("fog")[0](severity=severity)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(3, 8, 8), "is for images"),
        (torch.zeros(1, 2, 8, 8), "1 or 3 channels"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((1, 3, 8, 8), 2.0), r"takes values in \[0, 1\]"),
    ],
)
def test_inputs_that_are_no_images_are_refused(x, match):
    with pytest.raises(InputError, match=match):
        select("fog")[0]()(x)


@pytest.mark.parametrize("name", ["index", "draw"])
def test_numbers_belong_to_each_image(name):
    with pytest.raises(InputError, match=f"{name} must hold a whole number for each of 3 images"):
        select("fog")[0]()(pictures(3), **{name: torch.arange(2)})


def test_names_and_groups_are_in_the_order_of_the_tables():
    assert [kind.slug for kind in select(["weather", "shot-noise"])] == [
        "shot_noise", "snow", "frost", "fog", "brightness",
    ]  # fmt: skip
    assert select("all") == EVERY


@pytest.mark.parametrize("names", ["forg", ["fog", "rain"], []])
def test_unknown_names_are_answered_with_near_ones(names):
    with pytest.raises(SettingError, match=r"Did you mean|Groups are|no corruption is named"):
        select(names)
