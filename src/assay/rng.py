"""Random numbers keyed by (seed, sample index, draw number), computed as tensor arithmetic on the device.

A sample's draws do not depend on which batch, order, process or device it is attacked in. The generator is
Philox-4x32 with 10 rounds: the seed is its 64-bit key, and its 128-bit counter holds the sample index (64 bits), the
draw number (32 bits) and the position inside the draw (32 bits), so that two different draws never share a counter.
Where a sample needs many streams of one seed (its views), the number of the stream is added to the key.

References:
    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
    https://doi.org/10.1145/2063384.2063405
    Wellons, "Prospecting for hash functions", 2018, https://nullprogram.com/blog/2018/07/31/ (the hash of `coarse`)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final

import torch
from torch import Tensor

from assay.errors import SettingError

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MIXERS = (0x7FEB352D, 0x846CA68B - (1 << 32))  # as int32; found by Wellons' search for little bias
_BLOCK = {
    "cpu": 1 << 16,
    "cuda": 1 << 24,
}  # counters computed at once: what a cache or a card's memory holds easily


def derive(seed: int, *names: str | int) -> int:
    """Return an independent 63-bit seed for a named part of a run (a stage, a restart, a defense).

    Args:
        seed: the run's seed.
        names: what the new seed is for.

    Example:
        >>> derive(0, "square") == derive(0, "square"), derive(0, "square") == derive(0, "apgd-ce")
        (True, False)
    """
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def philox(key: int | Tensor, index: Tensor, draw: int, blocks: int, first: int = 0) -> Tensor:
    """Philox-4x32-10 words for each sample.

    Args:
        key: 64-bit key, of all samples or of each.
        index: sample numbers, one per row.
        draw: draw number, below 2**32.
        blocks: number of 4-word blocks per sample.
        first: number of the first block.

    Shapes:
        key: one number, or `(b,)` int64.
        index: `(b,)` int64; returns `(b, 4 * blocks)` int64 with values in [0, 2**32).
    """
    return torch.stack(_four(key, index, draw, blocks, first), dim=2).flatten(1)


def _four(key: int | Tensor, index: Tensor, draw: int, blocks: int, first: int) -> list[Tensor]:
    """The four words of each block of `philox`, by their place in it: four tensors `(b, blocks)`."""
    position = torch.arange(first, first + blocks, device=index.device, dtype=torch.int64)[None, :]
    shape = (len(index), blocks)
    words = [
        position.expand(shape),
        torch.full(shape, draw & _WORD, device=index.device, dtype=torch.int64),
        (index & _WORD)[:, None].expand(shape),
        ((index >> 32) & _WORD)[:, None].expand(shape),
    ]
    key = key[:, None] if isinstance(key, Tensor) else key
    keys = [key & _WORD, (key >> 32) & _WORD]
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2**64, which keeps both 32-bit halves intact. The low half goes on with dirt above
        # its 32 bits: it is only XORed into a word that is masked in the next round (or at the end).
        low, high = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        upper, lower = low >> 32, high >> 32
        lower.bitwise_xor_(words[1]).bitwise_xor_(keys[0]).bitwise_and_(_WORD)
        upper.bitwise_xor_(words[3]).bitwise_xor_(keys[1]).bitwise_and_(_WORD)
        words = [lower, high, upper, low]
        keys = [(k + w) & _WORD for k, w in zip(keys, _WEYL, strict=True)]
    return [word.bitwise_and_(_WORD) for word in words]


@final
class Keyed:
    """A stream of draws for a batch of samples; every call is the next draw of each sample.

    Args:
        seed: any integer (its low 64 bits count).
        index: the samples' own numbers, `(b,)` int64, on the device where numbers are wanted.
        dtype: floating type of `uniform` and `normal`.
        stream: which of the seed's streams each sample draws from, `(b,)` int64; 0 for all when None. Two rows share
            numbers only where both index and stream are the same.

    Raises:
        SettingError: the index is not a one-dimensional integer tensor.

    Example:
        >>> import torch
        >>> whole = Keyed(0, torch.arange(4)).uniform(2)
        >>> alone = Keyed(0, torch.tensor([3])).uniform(2)
        >>> bool((whole[3] == alone[0]).all())
        True
    """

    def __init__(
        self, seed: int, index: Tensor, *, dtype: torch.dtype = torch.float32, stream: Tensor | None = None
    ) -> None:
        if index.ndim != 1 or index.is_floating_point() or index.is_complex():
            raise SettingError(
                f"index must be a 1-D integer tensor, one number per sample; got {index.dtype} of shape "
                f"{tuple(index.shape)}. Use for instance torch.arange(len(x))."
            )
        self.seed, self.index, self.dtype, self.draw = seed, index.long(), dtype, 0
        self.stream = stream

    def at(self, rows: Tensor) -> Keyed:
        """The same stream, at the same draw, for a part of the batch (bool mask or indices)."""
        stream = None if self.stream is None else self.stream[rows]
        part = Keyed(self.seed, self.index[rows], dtype=self.dtype, stream=stream)
        part.draw = self.draw
        return part

    def named(self, *names: str | int) -> Keyed:
        """An independent stream of the same samples for a named part of a search, from its first draw on."""
        return Keyed(derive(self.seed, *names), self.index, dtype=self.dtype, stream=self.stream)

    def words(self, count: int, rows: Tensor | None = None) -> Tensor:
        """The next draw: `count` 32-bit words per sample, `(b, count)` int64 (or only the given rows)."""
        out = torch.empty(self._height(rows), -(-count // 4), 4, device=self.index.device, dtype=torch.int64)
        for part, four in self._parts(out, rows):
            torch.stack(four, dim=2, out=part)
        return out.flatten(1)[:, :count]

    def _height(self, rows: Tensor | None) -> int:
        return len(self.index if rows is None else self.index[rows])

    def _parts(self, out: Tensor, rows: Tensor | None) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """The next draw for `out`, `(b, blocks, ...)`, in parts that a cache can hold, with the four words of each."""
        index, key = self.index, self._key()
        if rows is not None:
            index, key = index[rows], key[rows] if isinstance(key, Tensor) else key
        blocks = out.shape[1]
        at_once = _BLOCK.get(index.device.type, _BLOCK["cuda"])
        width = min(blocks, at_once)
        height = max(1, at_once // max(width, 1))
        for top in range(0, len(index), height):
            keys = key[top : top + height] if isinstance(key, Tensor) else key
            for left in range(0, blocks, width):
                part = out[top : top + height, left : left + width]
                yield part, _four(keys, index[top : top + height], self.draw, part.shape[1], left)
        self.draw += 1

    def _key(self) -> int | Tensor:
        """The generator's key: the low 64 bits of the seed, and the streams' numbers added to it."""
        if self.stream is None:
            return self.seed
        return self.stream + ((self.seed + (1 << 63)) % (1 << 64) - (1 << 63))  # int64 sums wrap

    def _unit(self, count: int, rows: Tensor | None) -> Tensor:
        """Uniform on [0, 1): 24 bits for float32 and narrower, 53 bits for float64; `(b, count)`."""
        double = self.dtype == torch.float64
        each, kind = (2, torch.float64) if double else (4, torch.float32)
        out = torch.empty(self._height(rows), -(-count // each), each, device=self.index.device, dtype=kind)
        for part, four in self._parts(out, rows):
            if double:
                for k in (0, 1):
                    high, low = four[2 * k] >> 5, four[2 * k + 1] >> 6
                    part[:, :, k] = high.bitwise_left_shift_(26).bitwise_or_(low)
                part.mul_(2.0**-53)
            else:
                for k in range(4):
                    part[:, :, k] = four[k].bitwise_right_shift_(8)
                part.mul_(2.0**-24)
        return out.flatten(1)[:, :count]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, rows: Tensor | None = None) -> Tensor:
        """Uniform numbers on [low, high), `(b, *shape)`; with `rows` (bool mask or indices) only for those."""
        unit = self._unit(math.prod(shape), rows)
        return unit.mul_(high - low).add_(low).reshape(-1, *shape).to(self.dtype)

    def normal(self, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Standard normal numbers `(b, *shape)`, by the Box-Muller transform (both branches are used)."""
        count = math.prod(shape)
        half = -(-count // 2)
        unit = self._unit(2 * half, rows)
        at_once = _BLOCK.get(unit.device.type, _BLOCK["cuda"])
        width = max(1, min(half, at_once))
        height = max(1, at_once // width)
        for top in range(0, len(unit), height):
            for left in range(0, half, width):
                first = unit[top : top + height, left : min(left + width, half)]
                second = unit[top : top + height, half + left : min(half + left + width, 2 * half)]
                radius = (1.0 - first).log_().mul_(-2.0).sqrt_()  # 1 - u lies in (0, 1]: the logarithm is finite
                angle = second * (2.0 * math.pi)
                first.copy_(angle.cos().mul_(radius))
                second.copy_(angle.sin_().mul_(radius))
        return unit[:, :count].reshape(-1, *shape).to(self.dtype)

    def integers(self, low: int, high: int, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Integers in [low, high), `(b, *shape)` int64; the bias is below (high - low) / 2**32.

        Raises:
            SettingError: the range is empty or wider than 2**31.
        """
        if not 0 < high - low <= 1 << 31:
            raise SettingError(f"integers needs low < high and a range of at most 2**31; got [{low}, {high}).")
        return ((self.words(math.prod(shape), rows) * (high - low)) >> 32).add_(low).reshape(-1, *shape)

    def coarse(self, *shape: int, rows: Tensor | None = None) -> Tensor:
        """Whole numbers uniform on [0, 2**16), `(b, *shape)` int32: a sixth of the cost, for noise in every pixel.

        Each is half of a 32-bit hash of its position, which two words of the sample's own stream key: two rounds of
        shifts and multiplications that spread every bit. Searches, whose decisions hang on few numbers, use `uniform`.
        """
        count = math.prod(shape)
        keys = self.words(2, rows)
        keys = torch.where(keys > _WORD >> 1, keys - _WORD - 1, keys).to(torch.int32)
        mixed = torch.arange(-(-count // 2), dtype=torch.int32, device=keys.device) + keys[:, :1]
        mixed.bitwise_xor_((mixed >> 16).bitwise_and_(0xFFFF)).mul_(_MIXERS[0]).bitwise_xor_(keys[:, 1:])
        mixed.bitwise_xor_((mixed >> 15).bitwise_and_(0x1FFFF)).mul_(_MIXERS[1])
        mixed.bitwise_xor_((mixed >> 16).bitwise_and_(0xFFFF))
        halves = torch.cat([mixed & 0xFFFF, (mixed >> 16).bitwise_and_(0xFFFF)], dim=1)
        return halves[:, :count].reshape(-1, *shape)

    def choice(self, n: int, k: int, *, rows: Tensor | None = None) -> Tensor:
        """`k` different numbers out of range(n), in random order, `(b, k)` int64.

        Raises:
            SettingError: `k` exceeds `n`.
        """
        if not 0 < k <= n:
            raise SettingError(f"choice needs 0 < k <= n; got k={k}, n={n}.")
        word = self.words(2 * n, rows)
        key = ((word[:, ::2] >> 1) << 32) | word[:, 1::2]  # 63 bits: ties have no practical chance
        return key.topk(k, dim=1, largest=False).indices


_GIVEN: ContextVar[Keyed | None] = ContextVar("given", default=None)


@contextmanager
def drawing(rng: Keyed) -> Iterator[None]:
    """Have models that draw random numbers draw them from this stream, one row of it for each input.

    It reaches every module below the call, through whatever wraps the model, as `torch.no_grad` does. Numbers then
    depend on the key of each input and not on its batch.

    Example:
        >>> import torch
        >>> with drawing(Keyed(0, torch.tensor([7]))):
        ...     there = stream(torch.zeros(1, 3)).uniform(2)
        >>> bool((there == Keyed(0, torch.tensor([7])).uniform(2)).all())
        True
    """
    token = _GIVEN.set(rng)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def given(x: Tensor) -> Keyed | None:
    """The stream that a model is to draw from for these inputs; None where nobody has set one.

    Raises:
        SettingError: it has another number of rows.
    """
    rng = _GIVEN.get()
    if rng is not None and len(rng.index) != len(x):
        raise SettingError(
            f"the stream of random numbers is for {len(rng.index)} inputs and {len(x)} are drawn for: a model that is "
            "asked with keyed draws has to keep its rows."
        )
    return rng


def stream(x: Tensor) -> Keyed:
    """The stream that is given for these inputs, or a new one with a key from torch's own generator."""
    rng = given(x)
    if rng is not None:
        return rng
    return Keyed(int(torch.randint(1 << 62, ())), torch.arange(len(x), device=x.device))
