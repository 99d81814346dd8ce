"""Data adopts what users have, reads it lazily, and recognises itself."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from assay.data import Data
from assay.errors import DataError


class Counting(Dataset):
    """Ten samples, recording which were read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 10

    def __getitem__(self, position):
        self.read.append(position)
        return torch.full((1, 2, 2), position / 10), position % 3


def test_a_pair_of_tensors_numbers_its_samples_by_position():
    data = Data.of((torch.rand(4, 3), torch.tensor([3, 1, 2, 0], dtype=torch.int32)))
    x, y, index = data.batch(1, 3)
    assert torch.equal(x, data.x[1:3])
    assert y.tolist() == [1, 2]
    assert y.dtype == index.dtype == torch.int64
    assert index.tolist() == [1, 2]


def test_own_sample_numbers_travel_with_the_samples():
    data = Data.of((torch.rand(3, 2), torch.tensor([0, 1, 2]), torch.tensor([70, 5, 9])))
    assert data.batch(1, 9)[2].tolist() == [5, 9]
    assert data.take(2).batch(0, 9)[2].tolist() == [70, 5]


def test_arrays_are_adopted():
    data = Data.of((np.zeros((2, 3), dtype=np.float32), np.array([1, 0])))
    assert data.x.shape == (2, 3)
    assert data.y.tolist() == [1, 0]


def test_a_dataset_is_read_only_where_it_is_asked():
    source = Counting()
    data = Data.of(source, name="mine")
    assert (len(data), data.name, source.read) == (10, "mine", [])
    x, y, index = data.batch(4, 6)
    assert source.read == [4, 5]
    assert x[:, 0, 0, 0].tolist() == pytest.approx([0.4, 0.5])
    assert (y.tolist(), index.tolist()) == ([1, 2], [4, 5])
    assert len(data.take(3)) == 3
    assert data.take(3).batch(2, 10)[1].tolist() == [2]
    assert source.read == [4, 5, 2]


def test_a_tensor_dataset_keeps_its_tensors():
    x = torch.rand(3, 2)
    assert Data.of(TensorDataset(x, torch.arange(3))).x is x


def test_data_stays_itself_and_can_be_renamed():
    data = Data(torch.zeros(1, 2), torch.tensor([0]))
    assert Data.of(data) is data
    assert Data.of(data, name="other").name == "other"


def test_data_is_a_dataset_for_loaders():
    data = Data.of((torch.arange(6.0).reshape(3, 2), torch.tensor([2, 1, 0])))
    assert [int(y) for _, y in data] == [2, 1, 0]
    assert data[-1][1] == 0
    with pytest.raises(IndexError):
        data[3]
    (x, y) = next(iter(DataLoader(data, batch_size=3)))
    assert torch.equal(x, data.x)
    assert y.tolist() == [2, 1, 0]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ((torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)), "there are 3 samples"),
        ((torch.zeros(3, 2), torch.zeros(3)), "labels are torch.float32; pass integers"),
        ((torch.zeros(3, 2), torch.zeros(3, 10, dtype=torch.int64)), r"labels have shape \(3, 10\)"),
        ((torch.zeros(3, 2), torch.arange(3), torch.arange(2)), "index have shape"),
        ((torch.tensor(1.0), torch.tensor([1])), "single number"),
        (DataLoader(TensorDataset(torch.zeros(1), torch.zeros(1))), r"loader\.dataset"),
        (Endless(), "cannot use Endless"),
        ("digits", "cannot use str"),
        (torch.zeros(3, 2), "cannot use Tensor"),
    ],
)
def test_what_cannot_be_adopted(source, words):
    with pytest.raises(DataError, match=words):
        Data.of(source)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{"x": 1}], "sample 0 is a dict; expected"),
        ([(torch.zeros(2), 0), (torch.zeros(2), 0, 1)], "sample 1 is a tuple of 3"),
        ([(torch.zeros(2), "cat")], "label of sample 0 is 'cat'"),
        ([("path.png", 1)], "sample 0 is a str"),
        ([(torch.zeros(2), 0), (torch.zeros(3), 0)], r"sample 0 has shape \(2,\), sample 1 has \(3,\)"),
    ],
)
def test_items_that_are_no_pairs(items, words):
    class Source(Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, position):
            return items[position]

    with pytest.raises(DataError, match=words):
        Data.of(Source()).batch(0, len(items))


def test_a_batch_beyond_the_end_is_an_error():
    with pytest.raises(DataError, match=r"no samples in 20\.\.30"):
        Data.of(Counting()).batch(20, 30)
    with pytest.raises(DataError, match=r"no samples in 5\.\.6"):
        Data.of((torch.zeros(3, 1), torch.arange(3))).batch(5, 6)


def test_the_fingerprint_changes_with_what_it_covers():
    x, y = torch.rand(5, 2), torch.tensor([0, 1, 2, 3, 4])
    print_of = Data.of((x, y)).fingerprint()
    assert print_of == Data.of((x.clone(), y.clone()), name="other name").fingerprint()
    touched = x.clone()
    touched[3, 1] += 1e-3
    others = [
        Data.of((x + 0.5, y)),
        Data.of((touched, y)),
        Data.of((x[:4], y[:4])),
        Data.of((x, y.flip(0))),
        Data.of((x, y, y + 1)),
        Data(x, y, classes=tuple("abcde")),
    ]
    assert print_of not in [other.fingerprint() for other in others]
    assert len({other.fingerprint() for other in others}) == len(others)
    assert Data.of(Counting()).fingerprint() == Data.of(Counting()).fingerprint()


@pytest.mark.parametrize("label", [1.5, torch.tensor(0.5), float("inf"), torch.tensor([0, 1]), "1"])
def test_a_label_that_is_no_integer_is_refused(label):
    class One(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, position):
            return torch.zeros(2), label

    with pytest.raises(DataError, match=r"label of sample 0 is .*expected an integer"):
        Data.of(One()).batch(0, 1)
