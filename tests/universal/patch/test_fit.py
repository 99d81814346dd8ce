"""A model that looks for one colour: the fitted patch shows it, a random one does not."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image
from torch import nn

import assay
from assay.errors import AccessError, InputError, SettingError, StoreError
from assay.transformations import Blur, Noise
from assay.universal import Pasting, PatchAscent, Universal, UniversalPatch, fit_patch, patch_fitting
from assay.universal.patch.picture import printed

RED = torch.tensor([1.0, -0.5, -0.5])


class LooksForRed(nn.Module):
    """Class 2 where the most red of all 4 by 4 blocks exceeds a threshold; else class 0 or 1 by brightness."""

    def forward(self, x):
        block = nn.functional.avg_pool2d((x * RED[:, None, None]).sum(dim=1, keepdim=True), 4, 1)
        red = block.flatten(1).amax(dim=1)
        bright = x.flatten(1).mean(dim=1) - 0.5
        return torch.stack([-20 * bright, 20 * bright, 40 * (red - 0.7)], dim=1)


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 + 0.2 * torch.randn(count, 3, 16, 16, generator=generator)
    x = (x + 0.2 * torch.randn(count, 1, 1, 1, generator=generator)).clamp(0, 1)
    return x, LooksForRed()(x).argmax(dim=1)


FAST = {"area": 0.2, "scale": (0.8, 1.0), "steps": 40, "batch": 16, "lr": 0.2}


@pytest.fixture(scope="module")
def fitted():
    return fit_patch(LooksForRed(), images(60, 0), target=2, **FAST)


def test_the_fitted_patch_wins_on_other_images_and_a_random_one_does_not(fitted):
    model, data = LooksForRed(), images(200, 1)
    assert set(data[1].tolist()) == {0, 1}
    assert fitted.measure(model, data).fooling.value > 0.95
    assert fitted.measure(model, data).target.value > 0.95
    assert fitted.rates["fit"].target.value > 0.95
    assert fitted.measure(model, data).accuracy.value < 0.05
    random = fitted.baseline()
    assert random.patch.shape == fitted.patch.shape
    assert random.measure(model, data).target.value < 0.05
    inside = fitted.patch[:, 3:-3, 3:-3]
    assert float(inside[0].mean()) > 0.9  # it shows red
    assert float(inside[1:].mean()) < 0.1


def test_without_a_target_any_other_class_will_do():
    class RedOrNot(LooksForRed):
        def forward(self, x):
            red = super().forward(x)[:, 2]
            return torch.stack([torch.zeros_like(red), red], dim=1)

    (x, _), (other, _) = images(60, 0), images(200, 1)
    nothing = torch.zeros(200, dtype=torch.int64)
    found = fit_patch(RedOrNot(), (x, nothing[:60]), **FAST)
    rates = found.measure(RedOrNot(), (other, nothing))
    assert rates.fooling.value > 0.9
    assert rates.clean_accuracy.value == 1
    assert rates.target is None
    assert found.baseline().measure(RedOrNot(), (other, nothing)).fooling.value < 0.05


def test_without_a_target_the_class_that_a_patch_reaches_most_easily_is_found():
    """What leads away from each decision by itself makes bright images dark and dark ones bright, and fools few."""
    model, data, other = LooksForRed(), images(60, 0), images(200, 1)
    assert fit_patch(model, data, **FAST, scouts=0).measure(model, other).fooling.value < 0.5
    found = fit_patch(model, data, **FAST, scout_steps=20)
    assert found.measure(model, other).fooling.value > 0.95
    assert found.settings["target"] is None
    assert found.spent["forwards"] == 60 + found.spent["backwards"]
    assert 3 * 20 * 12 + 40 * 12 < found.spent["backwards"] <= (3 * 20 + 40) * 16


class Divided(nn.Module):
    """Patches brighter than 0.43 bring most images to class 1, and ones darker than 0.35 the few dark in channel 1."""

    share = 0.25  # of an image that the patch covers

    def forward(self, x):
        moved = (x[:, 0].flatten(1).mean(dim=1) - 0.4) / self.share
        few = x[:, 1].flatten(1).mean(dim=1) < 0.42
        logit = torch.where(few, -20 * (moved + 0.05), 5 * (moved - 0.03))
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def test_the_last_steps_raise_the_count_of_what_is_fooled():
    """What leads away is ruled by the few, the only ones that a grey patch does not fool; the count by the many."""
    x = torch.full((20, 3, 16, 16), 0.4)
    x[:2, 1] = 0.3
    data = x, torch.zeros(20, dtype=torch.int64)
    settings = {"area": Divided.share, "scale": (1.0, 1.0), "rotation": 0.0, "steps": 1, "batch": 20, "lr": 0.05}
    without = fit_patch(Divided(), data, **settings, scouts=0)
    found = fit_patch(Divided(), data, **settings, scouts=0, finish=1)
    middle = (slice(0, 1), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(without.patch[middle], torch.full_like(without.patch[middle], 0.45))
    torch.testing.assert_close(found.patch[middle], torch.full_like(found.patch[middle], 0.5))
    assert (without.spent["backwards"], found.spent["backwards"]) == (20, 40)
    aimed = fit_patch(Divided(), data, **settings, target=1, finish=1)
    assert aimed.spent["backwards"] == 20  # a target has steps of its own only
    longer = fit_patch(Divided(), data, **settings, scouts=0, finish=30)
    assert longer.rates["fit"].fooling.value == 0.9


def test_the_model_sees_patched_images_inside_the_bounds_at_places_of_their_own():
    seen = []

    class Watching(LooksForRed):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    x = torch.full((8, 3, 16, 16), 0.5)
    patch = UniversalPatch(patch=torch.ones(3, 9, 9), pasting=Pasting(area=0.2, scale=(0.8, 1.0)), settings={"seed": 0})
    patch.measure(Watching(), (x, torch.zeros(8, dtype=torch.int64)))
    moved = seen[-1]
    assert float(moved.min()) >= 0.5
    assert float(moved.max()) == 1
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 8
    assert torch.equal(patch.apply(x), patch.apply(x))
    assert torch.allclose(moved, patch.apply(x), atol=1e-6)
    assert not torch.equal(patch.apply(x), patch.apply(x, seed=1))
    assert torch.equal(patch.apply(x)[5:], patch.apply(x[5:], index=torch.tensor([5, 6, 7])))


def test_other_bounds_and_the_start():
    class Shifted(LooksForRed):
        def forward(self, x):
            return super().forward((x + 1) / 2)

    x, y = images(40, 0)
    found = fit_patch(Shifted(), (2 * x - 1, y), target=2, bounds=(-1.0, 1.0), **FAST)
    assert found.rates["fit"].target.value > 0.95
    assert float(found.patch.min()) < -0.5
    steps = patch_fitting(Shifted(), (2 * x - 1, y), target=2, bounds=(-1.0, 1.0), start=found, steps=1, lr=1e-9)
    again = next(steps).universal
    assert torch.allclose(again.patch, found.patch, atol=1e-6)
    assert again.pasting == found.pasting
    assert again.settings["warm_start"] is True


def test_passes_and_forwards_are_counted_and_seeds_decide():
    data = images(20, 0)
    steps = [now.universal for now in patch_fitting(LooksForRed(), data, steps=4, batch=16, area=0.2, scouts=0)]
    assert [found.spent["passes"] for found in steps] == [0, 1, 1, 2]
    assert [found.spent["backwards"] for found in steps] == [16, 20, 36, 40]
    assert steps[-1].spent["forwards"] == 20 + 40
    other = [now.universal for now in patch_fitting(LooksForRed(), data, steps=4, batch=16, area=0.2, scouts=0, seed=1)]
    again = [
        now.universal
        for now in patch_fitting(LooksForRed(), data, steps=4, batch=16, area=0.2, scouts=0, micro_batch=3)
    ]
    assert torch.allclose(again[-1].patch, steps[-1].patch, atol=1e-5)
    assert not torch.allclose(other[-1].patch, steps[-1].patch, atol=1e-2)
    assert float(steps[0].patch.sub(0.5).abs().max()) == pytest.approx(0.2, rel=1e-3)  # the first step of Adam


class FooledByFiles(LooksForRed):
    """Class 2 also where rows of pixels alternate finely, which no image does that was blurred a little."""

    def forward(self, x):
        logits = super().forward(x)
        comb = (x[:, :, 1:-1] - (x[:, :, :-2] + x[:, :, 2:]) / 2).abs().mean(dim=1, keepdim=True)
        fine = nn.functional.max_pool2d(nn.functional.avg_pool2d(comb, 4, 1), 99, ceil_mode=True).flatten(1)[:, 0]
        return torch.cat([logits[:, :2], torch.maximum(logits[:, 2], 200 * (fine - 0.3))[:, None]], dim=1)


def test_a_patch_fitted_on_transformed_images_relies_on_nothing_that_they_lose():
    (x, y), (other, labels) = images(60, 0), images(200, 1)
    blurred = Blur(4.0)

    def left(patch):
        moved = patch.apply(other)
        seen = blurred.apply(moved, torch.full((len(moved),), 1.5))
        return float((FooledByFiles()(seen).argmax(1) == 2).double().mean())

    plain = fit_patch(FooledByFiles(), (x, y), target=2, **FAST, seed=1)
    views = fit_patch(FooledByFiles(), (x, y), target=2, **FAST, seed=1, augment=[blurred, Noise(0.02)])
    assert plain.measure(FooledByFiles(), (other, labels)).target.value > 0.95
    assert left(views) > left(plain) + 0.2
    assert "augment=(Blur(4.0), Noise(0.02))" in views.settings["method"]
    assert views.spent["backwards"] == plain.spent["backwards"]


def test_what_is_saved_is_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "p")
    again = UniversalPatch.load(tmp_path / "p")
    assert torch.equal(again.patch, fitted.patch)
    assert (again.pasting, again.bounds, again.rates) == (fitted.pasting, fitted.bounds, fitted.rates)
    assert again.as_dict() == json.loads(json.dumps(fitted.as_dict()))
    assert repr(again) == repr(fitted)
    assert again.settings["method"] == repr(
        PatchAscent(pasting=Pasting(area=0.2, scale=(0.8, 1.0)), steps=40, batch=16, lr=0.2)
    )
    with pytest.raises(StoreError, match="not a universal perturbation"):
        Universal.load(tmp_path / "p")
    UniversalPatch(patch=torch.full((1, 2, 2), 1.5)).save(tmp_path / "beyond")
    with pytest.raises(StoreError, match="was altered: the patch has values outside"):
        UniversalPatch.load(tmp_path / "beyond")


def test_the_print_has_its_size_on_paper_and_white_around_a_circle(fitted, tmp_path):
    fitted.print_to(tmp_path / "p.png", centimetres=5, dpi=254)
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (500, 500)
        assert picture.info["dpi"] == pytest.approx((254, 254), abs=0.1)
        assert picture.getpixel((3, 3)) == (255, 255, 255)
        red, green, blue = picture.getpixel((250, 250))
        assert red > 200
        assert max(green, blue) < 60
    plain = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert len(printed(plain, "square", (0.0, 1.0), 1.0, 100)) > 0
    with pytest.raises(InputError, match="2 channels"):
        printed(torch.zeros(2, 3, 3), "square", (0.0, 1.0), 1.0, 100)
    with pytest.raises(InputError, match="pixels: choose"):
        fitted.print_to(tmp_path / "p.png", centimetres=1e6)


def test_the_picture_shows_images_without_and_with_it(fitted, tmp_path):
    fitted.picture(tmp_path / "p.png", LooksForRed(), images(5, 1), examples=3)
    with Image.open(tmp_path / "p.png") as picture:
        wide = picture.width
    fitted.picture(tmp_path / "alone.png")
    with Image.open(tmp_path / "alone.png") as picture:
        assert 3 * picture.width < wide < 5 * picture.width


def test_areas_of_circle_and_square_agree():
    for shape in ("circle", "square"):
        side = Pasting(area=0.1, shape=shape).side(32, 32)
        assert side**2 * (math.pi / 4 if shape == "circle" else 1) == pytest.approx(102.4)


class Labels(LooksForRed):
    access = assay.Access.LABELS


@pytest.mark.parametrize(
    ("model", "data", "settings", "error", "says"),
    [
        (LooksForRed(), images(5, 0), {"are": 0.1}, SettingError, "Did you mean area"),
        (LooksForRed(), images(5, 0), {"steps": 0}, SettingError, "steps must"),
        (LooksForRed(), images(5, 0), {"lr": -1}, SettingError, "lr must"),
        (LooksForRed(), images(5, 0), {"augment": [3]}, SettingError, "augment takes transformations"),
        (LooksForRed(), images(5, 0), {"scouts": -1}, SettingError, "scouts must"),
        (LooksForRed(), images(5, 0), {"target": 3}, SettingError, "knows 0 to 2"),
        (LooksForRed(), images(5, 0), {"area": 0.9}, SettingError, "pixels long"),
        (Labels(), images(5, 0), {}, AccessError, "fitting needs gradients"),
        (nn.Linear(4, 2), (torch.zeros(3, 4), torch.zeros(3).long()), {}, InputError, "needs images"),
    ],
)
def test_mistakes(model, data, settings, error, says):
    with pytest.raises(error, match=says):
        fit_patch(model, data, **settings)


def test_a_start_of_another_size():
    small = UniversalPatch(patch=torch.zeros(3, 4, 4))
    with pytest.raises(InputError, match="to start at has shape"):
        fit_patch(LooksForRed(), images(5, 0), start=small, area=0.2)
