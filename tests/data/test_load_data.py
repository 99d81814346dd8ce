"""Every form of DATA, and what a user sees when one cannot be read."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from assay.data import Data, load_data
from assay.data.load import SHIPPED, names
from assay.errors import DataError, MissingExtraError, SettingError


def write_image(path, value, size=(4, 3), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_fashion_mnist_ships_2000_labelled_images():
    data = load_data("fashion-mnist")
    assert data.x.shape == (2000, 1, 28, 28)
    assert data.x.dtype == torch.float32
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    assert data.classes[int(data.y[0])] == "Ankle boot"
    assert torch.bincount(data.y, minlength=10).min() > 150
    assert data.name == "fashion-mnist"


def test_digits_ship_all_1797_images():
    data = load_data("digits")
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.x.max() == 1.0
    assert data.y[:10].tolist() == list(range(10))


def test_limit_keeps_the_first_samples():
    data = load_data("digits", limit=7)
    assert len(data) == len(data.y) == 7
    assert len(load_data("digits", limit=10_000)) == 1797
    with pytest.raises(SettingError, match="limit is 0"):
        load_data("digits", limit=0)


def test_shipped_data_and_weights_stay_small():
    package = SHIPPED.parent.parent
    files = [*SHIPPED.iterdir(), *(package / "models" / "weights").iterdir()]
    assert sum(file.stat().st_size for file in files) <= 6_000_000


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("fashion-mnst", ["Did you mean 'fashion-mnist'", "folder:PATH", "npz:PATH", "package.module:callable"]),
        ("nothing/like:this", ["cannot read", "DATA is"]),
        ("no_such_module_here:make", ["no module named 'no_such_module_here'"]),
    ],
)
def test_an_unknown_name_is_answered_with_what_exists(spec, words):
    with pytest.raises(DataError) as error:
        load_data(spec)
    for word in words:
        assert word in str(error.value)


def test_every_shipped_name_is_registered():
    from assay import registry

    assert sorted(entry.name for entry in registry.entries("data")) == names()


def test_folder_labels_by_sorted_class_name_and_takes_turns(tmp_path):
    for name, values in {"zebra": (0, 51), "ant": (102, 153, 255)}.items():
        for number, value in enumerate(values):
            write_image(tmp_path / name / f"{number}.png", (value, 0, value))
    (tmp_path / ".hidden").mkdir()
    data = load_data(f"folder:{tmp_path}")
    assert data.classes == ("ant", "zebra")
    x, y, index = data.batch(0, 5)
    assert x.shape == (5, 3, 3, 4)
    assert y.tolist() == [0, 1, 0, 1, 0] == data.y.tolist()
    assert index.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(x[:, 0, 0, 0] * 255, torch.tensor([102.0, 0, 153, 51, 255]))
    assert data.name == tmp_path.name
    assert load_data(f"folder:{tmp_path}", limit=2).batch(0, 9)[1].tolist() == [0, 1]


def test_folder_reads_an_image_only_when_it_is_asked_for(tmp_path):
    write_image(tmp_path / "a" / "1.png", 3, mode="L")
    (tmp_path / "a" / "2.png").write_bytes(b"no image at all")
    data = load_data(f"folder:{tmp_path}")
    assert data[0][0].shape == (1, 3, 4)
    with pytest.raises(DataError, match=r"2\.png"):
        data.batch(0, 2)


def test_folder_with_a_truncated_image_names_the_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "a" / "cut.png"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut\.png.*Replace it"):
        load_data(f"folder:{tmp_path}")[0]


def test_folder_sizes_must_agree_or_be_brought_to_one(tmp_path):
    write_image(tmp_path / "a" / "1.png", (255, 0, 0), size=(40, 20))
    write_image(tmp_path / "a" / "2.png", 255, size=(10, 30), mode="L")
    with pytest.raises(DataError, match=r"size=224&mode=rgb"):
        load_data(f"folder:{tmp_path}").batch(0, 2)
    x, _, _ = load_data(f"folder:{tmp_path}?size=8&mode=rgb").batch(0, 2)
    assert x.shape == (2, 3, 8, 8)
    assert x[0].amax((1, 2)).tolist() == [1.0, 0.0, 0.0]
    assert load_data(f"folder:{tmp_path}?size=8&mode=grey").batch(0, 2)[0].shape == (2, 1, 8, 8)


def test_folder_keeps_the_centre_when_it_cuts(tmp_path):
    image = np.zeros((10, 30), dtype=np.uint8)
    image[:, 10:20] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(image).save(tmp_path / "a" / "1.png")
    assert load_data(f"folder:{tmp_path}?size=10")[0][0].min() == 1.0


def test_16_bit_grey_images_are_scaled_by_their_own_range(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((2, 2), 65535, dtype=np.uint16)).save(tmp_path / "a" / "1.png")
    assert load_data(f"folder:{tmp_path}")[0][0].tolist() == [[[1.0, 1.0], [1.0, 1.0]]]


@pytest.mark.parametrize(("mode", "channels"), [("grey", 1), ("rgb", 3)])
def test_16_bit_images_are_scaled_before_they_are_converted(tmp_path, mode, channels):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((2, 2), 257 * 51, dtype=np.uint16)).save(tmp_path / "a" / "1.png")
    x, _ = load_data(f"folder:{tmp_path}?mode={mode}&size=2")[0]
    torch.testing.assert_close(x, torch.full((channels, 2, 2), 0.2))


@pytest.mark.parametrize(
    ("options", "words"),
    [("?size=big", "size is 'big'"), ("?mode=blue", "mode is 'blue'"), ("?colour=red", "known are size=")],
)
def test_folder_options_are_checked(tmp_path, options, words):
    with pytest.raises(DataError, match=words):
        load_data(f"folder:{tmp_path}{options}")


def test_folder_without_classes_or_images(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        load_data(f"folder:{tmp_path / 'absent'}")
    with pytest.raises(DataError, match="has no folders; put the images of each class"):
        load_data(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no images below"):
        load_data(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [
        ((5, 4, 6), (5, 1, 4, 6)),
        ((5, 4, 6, 3), (5, 3, 4, 6)),
        ((5, 4, 6, 1), (5, 1, 4, 6)),
        ((5, 3, 4, 6), (5, 3, 4, 6)),
        ((5, 1, 28, 3), (5, 1, 28, 3)),
    ],
)
def test_npz_bytes_become_channels_first_in_0_1(tmp_path, shape, becomes):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    values.flat[:2] = 0, 255
    np.savez(tmp_path / "d.npz", x=values, y=np.arange(5))
    data = load_data(f"npz:{tmp_path / 'd.npz'}")
    assert data.x.shape == becomes
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    if shape[-1] == 3 and becomes[1] == 3:
        assert float(data.x[1, 2, 3, 4]) == pytest.approx(values[1, 3, 4, 2] / 255)
    assert data.y.tolist() == list(range(5))
    assert data.name == "d"


def test_npz_floats_are_kept(tmp_path):
    values = np.linspace(-3, 7, 24).reshape(2, 4, 3)
    np.savez(tmp_path / "d.npz", x=values, y=np.array([1, 0], dtype=np.uint8))
    data = load_data(f"npz:{tmp_path / 'd.npz'}")
    assert data.x.dtype == torch.float32
    torch.testing.assert_close(data.x, torch.from_numpy(values).float())


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros(3), "y": np.zeros(3, int)}, r"no array 'x'; it holds 'images', 'y'"),
        ({"a": np.zeros(3)}, r"no array 'x' and 'y'; it holds 'a'"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4, int)}, r"x has shape \(3, 2\) and y \(4,\)"),
        ({"x": np.zeros((3, 2)), "y": np.zeros((3, 1), int)}, "one label per row"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3)}, "y is float64; save integer class numbers"),
        ({"x": np.zeros((3, 2), int), "y": np.zeros(3, int)}, "x is int64; save images as uint8"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "holds no samples"),
        ({"x": np.array([{}, {}]), "y": np.zeros(2, int)}, "cannot read"),
    ],
)
def test_npz_with_other_contents_says_what_it_found(tmp_path, arrays, words):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_data(f"npz:{tmp_path / 'd.npz'}")


def test_npz_that_cannot_be_read(tmp_path):
    path = tmp_path / "d.npz"
    with pytest.raises(DataError, match="no file"):
        load_data(f"npz:{path}")
    path.write_bytes(b"not a zip file")
    with pytest.raises(DataError, match=r"cannot read .*d\.npz.*write it with numpy\.savez") as told:
        load_data(f"npz:{path}")
    assert "pickle" not in str(told.value)  # NumPy's advice would be to unpickle it
    np.savez_compressed(path, x=np.random.default_rng(0).random((50, 50)), y=np.zeros(50, int))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cannot read .*d\.npz"):
        load_data(f"npz:{path}")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        load_data(f"npz:{tmp_path / 'one.npy'}")


MODULE = """
import torch
from torch.utils.data import TensorDataset
from assay.data import Data

def pair(): return torch.zeros(3, 2), torch.tensor([0, 1, 0])
def named(): return Data(*pair(), name="mine")
def dataset(): return TensorDataset(*pair())
def broken(): raise RuntimeError("disk on fire")
def leaving(): raise SystemExit(0)
def text(): return "digits"
"""


def test_a_callable_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "my_data_module.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert len(load_data("my_data_module:pair")) == 3
    assert load_data("my_data_module:pair").name == "my_data_module:pair"
    assert load_data("my_data_module:named").name == "mine"
    assert load_data("my_data_module:dataset", limit=2).batch(0, 5)[1].tolist() == [0, 1]
    for name, words in (
        ("broken", "disk on fire"),
        ("leaving", "SystemExit"),
        ("text", "cannot use str"),
        ("pear", "mean 'pair'"),
    ):
        with pytest.raises(DataError, match=words):
            load_data(f"my_data_module:{name}")


@pytest.mark.parametrize(("spec", "extra"), [("hf:mnist", "hf"), ("torchvision:CIFAR10", "torchvision")])
def test_hubs_name_the_extra_they_need(spec, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, {"hf": "datasets"}.get(extra, extra), None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'assay\[{extra}\]'"):
        load_data(spec)


class Rows:
    """A table as Hugging Face datasets hands it out."""

    def __init__(self, features):
        self.features = features

    def __len__(self):
        return 3

    def __getitem__(self, key):
        if isinstance(key, str):
            return [2, 1, 0]
        return {"img": Image.new("L", (4, 4), 255), "fine": 2 - key, "coarse": 9}


@pytest.fixture
def fake_datasets(monkeypatch):
    module = ModuleType("datasets")
    module.Image = type("Image", (), {})
    module.ClassLabel = type("ClassLabel", (), {"names": ["a", "b", "c"]})
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        if name == "absent":
            raise FileNotFoundError("no such set")
        return Rows({"img": module.Image(), "fine": module.ClassLabel(), "coarse": "int64"})

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_hf_finds_the_columns_and_decodes_when_asked(fake_datasets):
    data = load_data("hf:user/set?split=validation&config=small")
    assert fake_datasets == [("user/set", "small", "validation")]
    assert data.classes == ("a", "b", "c")
    x, y, _ = data.batch(1, 3)
    assert x.shape == (2, 1, 4, 4)
    assert y.tolist() == [1, 0] == data.y[1:].tolist()
    assert load_data("hf:user/set?label=coarse").batch(0, 1)[1].tolist() == [9]
    with pytest.raises(DataError, match="its columns are img, fine, coarse"):
        load_data("hf:user/set?label=absent")
    with pytest.raises(DataError, match="split=validation"):
        load_data("hf:absent")


def test_torchvision_sets_are_read_lazily(monkeypatch, tmp_path):
    class FakeSet:
        classes = ("cat", "dog")

        def __init__(self, root, train=True, download=False):
            if "forbidden" in root:
                raise OSError("read-only")
            assert download
            self.train = train

        def __len__(self):
            return 5 if self.train else 2

        def __getitem__(self, position):
            return Image.new("RGB", (4, 4), (255, 0, 0)), position % 2

    module = ModuleType("torchvision")
    module.datasets = SimpleNamespace(__all__=["FakeSet"], FakeSet=FakeSet)
    monkeypatch.setitem(sys.modules, "torchvision", module)
    data = load_data(f"torchvision:FakeSet?root={tmp_path}")
    assert (len(data), data.classes, data.name) == (2, ("cat", "dog"), "FakeSet")
    assert data[1][0].mean((1, 2)).tolist() == [1.0, 0.0, 0.0]
    assert len(load_data(f"torchvision:FakeSet?root={tmp_path}&split=train")) == 5
    with pytest.raises(DataError, match="mean 'FakeSet'"):
        load_data("torchvision:FakSet")
    with pytest.raises(DataError, match="read-only"):
        load_data("torchvision:FakeSet?root=forbidden")


def test_load_data_is_public():
    import assay

    assert assay.load_data is load_data
    assert assay.Data is Data
