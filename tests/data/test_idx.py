"""Files of MNIST's kind: what is written comes back, and damage is named."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from assay.data import load_data
from assay.errors import DataError

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([7, 1], dtype=np.uint8)))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES[:1]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([3], dtype=np.uint8)))
    return tmp_path


def test_both_parts_are_read(folder):
    train, test = load_data(f"idx:{folder}"), load_data(f"idx:{folder}?part=test")
    assert torch.equal(train.x, torch.from_numpy(IMAGES).float()[:, None] / 255)
    assert train.y.tolist() == [7, 1]
    assert test.y.tolist() == [3]
    assert len(test) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train-labels-idx1-ubyte", idx(np.zeros(3, dtype=np.uint8)), "2 images and 3 labels"),
        ("train-labels-idx1-ubyte", b"nothing of the kind", "no idx file"),
        ("train-labels-idx1-ubyte", idx(np.zeros(2, dtype=np.uint8))[:-1], "cut off"),
        ("train-images-idx3-ubyte.gz", b"not gzipped", "cannot read"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES), mtime=0)[:-9], "cannot read"),
    ],
    ids=["labels of other images", "another file", "cut off", "not gzipped", "gzipped and cut off"],
)
def test_damage_is_named(folder, name, content, says):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        load_data(f"idx:{folder}")


def test_what_is_missing_is_named(folder):
    with pytest.raises(DataError, match="neither train-images"):
        load_data(f"idx:{folder / 'elsewhere'}")
    with pytest.raises(DataError, match="train or test"):
        load_data(f"idx:{folder}?part=all")
