"""Runs over corruptions: counts, corruption errors, resuming, copies, pages."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import assay
from assay.corruptions import select
from assay.data import Data
from assay.data import copies as copies_module
from assay.data.copying import write_copies
from assay.data.folder import read_folder
from assay.errors import DataError, SettingError, StoreError
from assay.evaluation.corrupted import ALEXNET, Baseline, corrupt
from assay.evaluation.corrupted.errors import corruption_error, mean_corruption_error
from assay.evaluation.corrupted.page import render

COMMON = [kind.slug for kind in select("common")]
LIGHT = torch.tensor([0.1, 0.3, 0.5, 0.2] * 3).reshape(12, 1, 1, 1)
X = (LIGHT + 0.4 * torch.rand(12, 3, 12, 12, generator=torch.Generator().manual_seed(0))).mul(255).round() / 255
Y = torch.arange(12) % 3
# Published accuracies of torchvision's ResNet-50 on ImageNet-C, and its corruption errors, in percent.
ACCURACY = {
    "brightness": (68.02, 56.64), "contrast": (39.06, 71.43), "defocus_blur": (38.75, 74.71),
    "elastic_transform": (45.25, 84.75), "fog": (45.83, 66.11), "frost": (38.14, 74.84),
    "gaussian_noise": (29.29, 79.77), "glass_blur": (26.79, 88.61), "impulse_noise": (23.81, 82.58),
}  # fmt: skip
# Those of the other six, which the paper gives in whole percent.
WHOLE = {"shot_noise": 82, "motion_blur": 78, "zoom_blur": 80, "snow": 78, "pixelate": 77, "jpeg_compression": 77}


class Light(torch.nn.Module):
    """Three classes by the mean of the image."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, x):
        self.asked += len(x)
        light = x.flatten(1).mean(dim=1, keepdim=True)
        return -10 * (light - torch.tensor([[0.3, 0.5, 0.7]])).abs()


def labels(x):
    return Light()(x).argmax(1)


def run(model=None, **settings):
    return corrupt(model or Light(), (X, labels(X)), progress=False, **settings)


def spread_keys():
    return [(slug, severity) for slug in COMMON for severity in range(1, 6)]


def spread(errors):
    return {(slug, severity): error for slug, error in errors.items() for severity in range(1, 6)}


def test_alexnet_is_its_own_measure():
    assert 100 * mean_corruption_error(ALEXNET.cells, ALEXNET, COMMON) == pytest.approx(100, abs=1e-9)
    relative = mean_corruption_error(ALEXNET.cells, ALEXNET, COMMON, clean=ALEXNET.clean)
    assert 100 * relative == pytest.approx(100, abs=1e-9)


@pytest.mark.parametrize("slug", ACCURACY)
def test_published_accuracies_give_the_published_corruption_errors(slug):
    accuracy, expected = ACCURACY[slug]
    found = corruption_error(spread({slug: 1 - accuracy / 100}), ALEXNET, slug)
    assert 100 * found == pytest.approx(expected, abs=0.011)


def test_resnet_50_has_its_published_mean():
    errors = {slug: 1 - accuracy / 100 for slug, (accuracy, _) in ACCURACY.items()}
    errors |= {slug: ratio / 100 * ALEXNET.cells[slug, 1] for slug, ratio in WHOLE.items()}
    found = 100 * mean_corruption_error(spread(errors), ALEXNET, COMMON)
    assert found == pytest.approx(76.7, abs=0.1)  # six of the fifteen are rounded to whole percent


def test_a_ratio_is_of_sums_and_the_relative_one_of_what_corruptions_add():
    base = Baseline(name="base", clean=0.2, cells={("fog", 1): 0.3, ("fog", 2): 0.7})
    cells = {("fog", 1): 0.2, ("fog", 2): 0.3}
    assert corruption_error(cells, base, "fog") == pytest.approx(0.5)
    assert corruption_error(cells, base, "fog", clean=0.1) == pytest.approx(0.3 / 0.6)
    assert corruption_error({("fog", 3): 0.2}, base, "fog") is None
    assert corruption_error(cells, ALEXNET, "fog") is None  # its means are of all five severities
    assert corruption_error(cells, Baseline(name="b", clean=None, cells=base.cells), "fog", clean=0.1) is None


def test_counts_are_those_of_a_plain_loop():
    found = run(corruptions=["fog", "contrast", "spatter"], severities=[2, 5], seed=3)
    for kind in select(["fog", "contrast", "spatter"]):
        for severity in (2, 5):
            right = (labels(kind(severity=severity)(X, seed=3)) == labels(X)).float().mean()
            assert found.accuracy(kind.slug, severity) == pytest.approx(float(right))
    assert found.clean_accuracy == 1
    mean = (found.accuracy("fog") + found.accuracy("contrast")) / 2  # extra ones are not in the mean
    assert found.mean_accuracy == pytest.approx(mean)
    assert "mean accuracy" in found.table()


def test_chunks_do_not_matter():
    whole, parts = run(corruptions="weather"), run(corruptions="weather", chunk=5)
    assert whole.results == parts.results


def test_a_model_that_draws_random_numbers_draws_them_by_sample():
    model = assay.defend(Light(), assay.defenses.InputNoise(0.3))
    settings = {"corruptions": "fog", "severities": [1, 3]}
    assert run(model, **settings).results == run(model, chunk=5, **settings).results
    evaluation = assay.evaluate(model, (X, labels(X)), threat="linf:0.1", suite="quick", progress=False)
    assert run(model, **settings).clean_accuracy == evaluation.clean_accuracy < 1


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    class Tired(Light):
        def forward(self, x):
            if self.asked > 60:
                raise KeyboardInterrupt
            return super().forward(x)

    settings = {"corruptions": "blur", "out": tmp_path / "run", "chunk": 5, "model_name": "light"}
    whole = run(corruptions="blur", chunk=5)
    with pytest.raises(KeyboardInterrupt):
        run(Tired(), **settings)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "interrupted"
    with pytest.raises(StoreError, match="--resume"):
        run(Tired(), **settings)
    second = Tired()
    second.asked = -10_000
    shards = sorted((tmp_path / "run" / "shards").rglob("*.safetensors"))
    assert shards
    shards[0].write_bytes(shards[0].read_bytes()[:-3])  # a damaged one is computed again
    found = run(second, resume=True, **settings)
    assert found.results == whole.results
    assert second.asked < -10_000 + 12 * 21
    with pytest.raises(StoreError, match="seed: 0 -> 1"):
        run(second, resume=True, seed=1, **settings)


def test_a_folder_holds_numbers_pictures_and_a_page(tmp_path):
    settings = {"corruptions": "common", "severities": [1, 5], "progress": False}
    base = corrupt(Light(), (X, Y), out=tmp_path / "base", **settings)
    found = corrupt(Light(), (X, Y), baseline=str(tmp_path / "base"), out=tmp_path / "run", **settings)
    assert base.mce is None
    assert found.mce == pytest.approx(100)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["kind"] == "corruptions"
    assert record["results"] == found.results
    page = (tmp_path / "run" / "report.html").read_text()
    assert "jpeg compression" in page
    assert "data:image/png;base64" in page
    assert "100.0 (of Light)" in page
    assert "other images" not in found.table() + page
    few = corrupt(Light(), (X, Y), baseline=str(tmp_path / "run"), out=tmp_path / "few", limit=4, **settings)
    name = record["settings"]["data"]
    assert f"other images ({name})" in few.table()
    assert f"other images ({name})" in (tmp_path / "few" / "report.html").read_text()
    with Image.open(tmp_path / "run" / "corruptions.png") as sheet:
        assert sheet.height > 15 * 100
    (tmp_path / "run" / "report.html").unlink()
    assert render(tmp_path / "run").read_text() == page


@pytest.mark.parametrize("layout", ["npy", "folders"])
@pytest.mark.parametrize("channels", [1, 3])
def test_copies_on_a_disk_give_the_same_numbers(tmp_path, layout, channels):
    x = X[:, :channels]
    data = Data(x, labels(x), classes=("dark", "middle", "white"))
    kinds = select(["gaussian_noise", "fog"])
    write_copies(data, tmp_path / "copies", kinds, layout=layout, seed=4)
    expected = corrupt(Light(), data, corruptions=["gaussian_noise", "fog"], seed=4, progress=False)
    found = corrupt(Light(), data, copies=tmp_path / "copies", progress=False)
    assert found.results["corruptions"] == expected.results["corruptions"]
    alone = corrupt(Light(), copies=tmp_path / "copies", corruptions=["fog"], progress=False)
    assert alone.clean_accuracy is None
    assert alone.accuracy("fog") == expected.accuracy("fog")


def test_copies_are_in_the_published_layouts(tmp_path):
    data = Data(X, Y, classes=("a", "b", "c"))
    (fog,) = select("fog")
    write_copies(data, tmp_path / "c", [fog])
    array = np.load(tmp_path / "c" / "fog.npy")
    assert (array.shape, array.dtype) == ((60, 12, 12, 3), np.uint8)
    assert np.load(tmp_path / "c" / "labels.npy").tolist() == Y.tolist() * 5
    expected = fog(severity=4)(X)[7].mul(255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(array[3 * 12 + 7], expected)
    write_copies(data, tmp_path / "d", [fog], layout="folders")
    files = sorted((tmp_path / "d" / "fog" / "4").rglob("*.png"))
    assert [file.parent.name for file in files] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    write_copies(Data(X, Y, classes=("t-shirt/top", "bag", "coat", "dress")), tmp_path / "e", [fog], layout="folders")
    classes = sorted(path.name for path in (tmp_path / "e" / "fog" / "1").iterdir())
    assert classes == ["0000_t-shirt-top", "0001_bag", "0002_coat", "0003_dress"]  # in the order of the labels
    with Image.open(tmp_path / "d" / "fog" / "4" / "b" / "00000007.png") as image:
        assert np.array_equal(np.asarray(image), expected)
    again = (tmp_path / "c" / "fog.npy").stat().st_mtime_ns
    write_copies(data, tmp_path / "c", select(["fog", "snow"]))
    assert (tmp_path / "c" / "fog.npy").stat().st_mtime_ns == again
    (tmp_path / "c" / "copies.json").unlink()  # as beside published ones
    with pytest.raises(DataError, match="labels of other data"):
        write_copies(Data(X, 2 - Y), tmp_path / "c", [fog])


def test_copies_that_are_not_whole_are_refused(tmp_path):
    """An accuracy over images that are not there would be too low, and labels of other classes wrong."""
    data = Data(X, labels(X), classes=("dark", "middle", "white"))
    write_copies(data, tmp_path / "c", select(["fog", "snow"]), layout="folders")
    (tmp_path / "c" / "snow" / "3" / "dark" / "00000000.png").unlink()
    with pytest.raises(DataError, match=r"snow.3 holds other images .*\(11 and 12\)"):
        corrupt(Light(), copies=tmp_path / "c", progress=False)
    write_copies(data, tmp_path / "c", select(["fog", "snow"]), layout="folders")
    found = corrupt(Light(), copies=tmp_path / "c", progress=False)
    assert found.accuracy("fog", 1) == pytest.approx(run(corruptions="fog").accuracy("fog", 1))
    for path in sorted((tmp_path / "c" / "snow" / "5" / "dark").iterdir()):
        path.rename(tmp_path / "c" / "snow" / "5" / "middle" / path.name)
    (tmp_path / "c" / "snow" / "5" / "dark").rmdir()
    with pytest.raises(DataError, match="holds other classes"):
        corrupt(Light(), copies=tmp_path / "c", progress=False)


@pytest.mark.parametrize("layout", ["npy", "folders"])
def test_clean_images_are_those_of_the_copies(tmp_path, layout):
    data = Data(X, labels(X), classes=("dark", "middle", "white"))
    write_copies(data, tmp_path / "c", select("fog"), layout=layout)
    for clean, match in (
        (data.take(7), "7 clean images and 12 copies"),
        (Data(X, (labels(X) + 1) % 3, classes=data.classes), "other labels"),
    ):
        with pytest.raises(DataError, match=match):
            corrupt(Light(), clean, copies=tmp_path / "c", progress=False)
    with pytest.raises(DataError, match="labels mean different classes" if layout == "folders" else "other labels"):
        corrupt(Light(), Data(X, 2 - labels(X), classes=data.classes[::-1]), copies=tmp_path / "c", progress=False)
    if layout == "npy":
        assert corrupt(Light(), data, copies=tmp_path / "c", limit=5, progress=False).clean_accuracy == 1
    else:  # whose first five are others: classes take turns
        with pytest.raises(DataError, match="one order"):
            corrupt(Light(), data, copies=tmp_path / "c", limit=5, progress=False)


@pytest.mark.parametrize("layout", ["npy", "folders"])
def test_copies_of_other_data_or_by_other_settings_are_not_mixed(tmp_path, layout):
    data, path = Data(X, Y), tmp_path / "c"
    write_copies(data, path, select("fog"), layout=layout)
    for other, settings, match in (
        (Data(1 - X, Y), {}, "data "),
        (data, {"seed": 1}, "seed 0 -> 1"),
        (data, {"table": "imagenet"}, "table None -> 'imagenet'"),
        (data, {"layout": "folders" if layout == "npy" else "npy"}, "layout"),
    ):
        with pytest.raises(DataError, match=match):
            write_copies(other, path, select("snow"), **{"layout": layout, **settings})
    (path / "copies.json").write_text("{}")
    with pytest.raises(DataError, match=r"copies\.json"):
        write_copies(data, path, select("snow"), layout=layout)


def test_clean_images_are_read_once_for_all_cells_and_class_folders_listed_once_for_each(tmp_path, monkeypatch):
    read, listed = [], []

    class Images:
        def __len__(self):
            return 12

        def __getitem__(self, position):
            read.append(position)
            return X[position], int(Y[position])

    corrupt(Light(), Data(Images(), Y), corruptions="noise", chunk=4, progress=False)
    assert len(read) < 4 * 12  # some for the fingerprint, and not once for each of 16 cells
    write_copies(Data(X, Y), tmp_path / "c", select("noise"), layout="folders")
    monkeypatch.setattr(copies_module, "read_folder", lambda spec: listed.append(spec) or read_folder(spec))
    corrupt(Light(), copies=tmp_path / "c", chunk=1, progress=False)
    assert len(listed) <= 15 + 5


def test_mce_is_of_all_common_corruptions_and_alexnet_of_images_like_its_own(tmp_path):
    whole = run(severities=[1, 5])
    base = Baseline(name="base", clean=0.0, cells=dict.fromkeys(spread_keys(), 0.5))
    assert run(severities=[1, 5], baseline=base).mce == pytest.approx(100 * 2 * (1 - whole.mean_accuracy))
    part = run(severities=[1, 5], corruptions="noise", baseline=base)
    assert part.mce is None
    assert part.relative_mce is None
    assert "mean CE " in part.table()
    assert "mCE" not in part.table()
    never = run(corruptions=["noise", "fog"], severities=[1], baseline=replace(base, cells={("fog", 1): 0.0}))
    assert "not known: no error of the baseline to divide by under gaussian_noise, shot_noise" in never.table()
    assert "not known: all corruptions are extra ones" in run(corruptions="extra", baseline=base).table()
    for settings, match in (
        ({}, "ImageNet-C"),
        ({"table": "imagenet", "severities": [1, 5]}, "five severities"),
    ):
        with pytest.raises(SettingError, match=match):
            run(baseline="alexnet", **settings)
    with pytest.raises(SettingError, match="1000 classes"):
        corrupt(Light(), Data(X, Y, classes=("a", "b", "c")), table="imagenet", baseline="alexnet")
    assert run(baseline="alexnet", table="imagenet").mce > 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"severities": [0]}, "severities are whole numbers"),
        ({"severities": []}, "at least one"),
        ({"corruptions": "rain"}, "unknown corruption"),
        ({"resume": True}, "give out"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(SettingError, match=match):
        run(**settings)


@pytest.mark.parametrize("shape", [(10, 3, 8, 8), (9, 8, 8, 3), (10, 8), (10, 8, 8, 4)])
def test_arrays_that_are_no_images_are_refused(tmp_path, shape):
    np.save(tmp_path / "labels.npy", np.zeros(10, dtype=np.uint8))
    np.save(tmp_path / "fog.npy", np.zeros(shape, dtype=np.uint8))
    with pytest.raises(DataError, match=r"expected uint8 images \(10, height, width"):
        corrupt(Light(), copies=tmp_path, progress=False)


def test_nothing_to_corrupt_and_folders_without_copies_are_refused(tmp_path):
    with pytest.raises(SettingError, match="nothing to corrupt"):
        corrupt(Light(), progress=False)
    with pytest.raises(DataError, match="holds no corrupted images"):
        corrupt(Light(), copies=tmp_path, progress=False)
    with pytest.raises(StoreError):
        run(baseline=str(tmp_path))


def test_names_of_the_package():
    assert assay.corrupt is corrupt
    assert assay.Corrupted.__name__ == "Corrupted"
