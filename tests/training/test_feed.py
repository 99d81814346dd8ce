"""Which samples a step sees."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from assay.data import Data
from assay.errors import DataError, SettingError
from assay.training.feed import Feed


def numbered(count, start=0, shape=(2,)):
    """Samples whose inputs are their numbers."""
    number = torch.arange(start, start + count)
    return Data(number.float().view(-1, *[1] * len(shape)).expand(-1, *shape).contiguous(), number % 3)


class Lazy(Dataset):
    """The same samples, read one by one."""

    def __init__(self, data, noise=0.0):
        self.data, self.noise = data, noise

    def __len__(self):
        return len(self.data)

    def __getitem__(self, place):
        x, y = self.data[place]
        drawn = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return x + self.noise * float(drawn), y


def batches(feed, epoch, first=0):
    return [index.tolist() for _, _, index in feed.epoch(epoch, first)]


def flat(lists):
    return [each for part in lists for each in part]


def test_every_sample_once_an_epoch_in_an_order_of_seed_and_epoch():
    feed = Feed(data=numbered(24), batch=4, seed=5)
    assert feed.steps == 6
    orders = [flat(batches(feed, epoch)) for epoch in range(3)]
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != sorted(orders[0])
    torch.manual_seed(99)
    again = Feed(data=numbered(24), batch=4, seed=5)
    assert [flat(batches(again, epoch)) for epoch in (2, 0)] == [orders[2], orders[0]]
    assert flat(batches(replace(again, seed=6), 0)) != orders[0]


def test_inputs_and_labels_belong_to_the_numbers():
    for x, y, index in Feed(data=numbered(24), batch=5, seed=0).epoch(1):
        assert torch.equal(x[:, 0].long(), index)
        assert torch.equal(y, index % 3)


def test_an_epoch_can_be_taken_up_at_any_batch():
    feed = Feed(data=numbered(24), batch=4, seed=5)
    for first in range(7):
        assert batches(feed, 1, first) == batches(feed, 1)[first:]


def test_a_remainder_is_left_out_another_one_every_epoch():
    feed = Feed(data=numbered(23), batch=4, seed=5)
    assert feed.steps == 5
    left = [set(range(23)) - set(flat(batches(feed, epoch))) for epoch in range(8)]
    assert {len(each) for each in left} == {3}
    assert len(set.union(*left)) > 8


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_batch(world):
    whole = Feed(data=numbered(24), batch=6, seed=5, extra=numbered(9, 100), extra_share=0.5)
    parts = [batches(replace(whole, rank=rank, world=world), 1) for rank in range(world)]
    for step, batch in enumerate(batches(whole, 1)):
        shares = [part[step] for part in parts]
        assert {len(share) for share in shares} == {6 // world}
        assert sorted(flat(shares)) == sorted(batch)


def test_extra_data_have_their_share_of_every_batch():
    feed = Feed(data=numbered(24), batch=8, seed=5, extra=numbered(10, 100), extra_share=0.25)
    assert feed.steps == 4  # an epoch is one pass over the data
    seen = []
    for epoch in range(5):
        own = []
        for x, y, index in feed.epoch(epoch):
            extra = x[:, 0] >= 100
            assert int(extra.sum()) == 2
            assert torch.equal(y, x[:, 0].long() % 3)
            assert len(set(index.tolist())) == 8
            assert (index[extra] > 10**9).all()  # numbers of their own
            own += x[~extra, 0].tolist()
            seen += x[extra, 0].tolist()
        assert sorted(own) == list(range(24))
    rounds = [sorted(seen[start : start + 10]) for start in range(0, 40, 10)]
    assert rounds == [list(range(100, 110))] * 4  # everyone in turn, over the epochs


@pytest.mark.parametrize("extra", [None, numbered(10, 100)])
def test_data_that_are_read_lazily_are_the_same(extra):
    share = 0.0 if extra is None else 0.25
    feed = Feed(data=numbered(24), batch=8, seed=5, extra=extra, extra_share=share)
    lazy = replace(feed, data=Data.of(Lazy(numbered(24))))
    for one, other in zip(feed.epoch(1, 1), lazy.epoch(1, 1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_a_data_set_draws_is_a_function_of_the_step():
    feed = Feed(data=Data.of(Lazy(numbered(24), noise=1.0)), batch=8, seed=5)
    whole = [x for x, _, _ in feed.epoch(1)]
    later = [x for x, _, _ in feed.epoch(1, 1)]
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], later, strict=True))
    assert not torch.equal(*(torch.sort(torch.cat([x for x, _, _ in feed.epoch(k)])[:, 0]).values for k in (0, 1)))


def test_what_cannot_be_read_is_told_without_a_traceback():
    class Torn(Lazy):
        def __getitem__(self, place):
            x, y = super().__getitem__(place)
            return (x[:1] if place == 20 else x), y

    with pytest.raises(DataError, match=r"^data: sample \d+ has shape"):
        list(Feed(data=Data.of(Torn(numbered(24))), batch=8, seed=5).epoch(0))
    other = numbered(10, shape=(3,))
    with pytest.raises(DataError, match=r"extra data hold inputs of shape \(3,\), the data of \(2,\)"):
        list(Feed(data=numbered(24), batch=8, seed=5, extra=other, extra_share=0.5).epoch(0))


def test_types_and_devices():
    feed = Feed(data=numbered(8), batch=8, seed=5, dtype=torch.float64)
    ((x, y, index),) = feed.epoch(0)
    assert (x.dtype, y.dtype, index.dtype) == (torch.float64, torch.int64, torch.int64)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch": 25}, "between 1 and the 24 samples to train on; got 25"),
        ({"batch": 0}, "between 1 and"),
        ({"batch": 9, "world": 2}, "a batch of 9 cannot be shared evenly by 2 processes"),
        ({"extra_share": 0.5}, "given together"),
        ({"extra": numbered(4)}, "given together"),
        ({"extra": numbered(4), "extra_share": 1.0}, "given together"),
        ({"extra": numbered(4), "extra_share": 0.01}, "0 samples: both data need some"),
        ({"extra": numbered(4), "extra_share": 0.99}, "8 samples: both data need some"),
    ],
)
def test_refused(settings, says):
    with pytest.raises(SettingError, match=says):
        Feed(**{"data": numbered(24), "batch": 8, "seed": 0} | settings)
