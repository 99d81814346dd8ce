"""The processes and devices that train one model together: the only file that knows Lightning Fabric.

Every process holds the whole model. Gradients are averaged over the processes by one all-reduce after the backward
pass, together with the statistics of batch norm, and not by hooks inside it: adversarial recipes run the network many
times a step and differentiate some of these passes twice, which such hooks do not allow.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, TypeAlias, cast, final

import torch
from torch import Tensor, nn

from assay.errors import LostProcessError, SettingError
from assay.rng import derive

Precision: TypeAlias = Literal["32-true", "bf16-mixed", "64-true"]
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed", "64-true")


@final
class Workers:
    """This process among those that train, its device and its precision.

    Args:
        device: "cpu", "cuda", "cuda:1", or None for CUDA where there is some. Under torchrun each process has a card of
            its own, whatever number is given.
        precision: "32-true", "bf16-mixed" or "64-true". Half precision without bfloat16's range ("16-mixed") is not
            offered: the input gradients that attacks follow vanish in it.

    Raises:
        SettingError: the precision is none of these, or there is no such device.
        LostProcessError: the processes of the run did not find each other.
    """

    def __init__(self, device: str | None = None, precision: str = "32-true") -> None:
        if precision not in PRECISIONS:
            raise SettingError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the import, and of what Fabric thinks of this machine
            from lightning_fabric import Fabric

            logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what Fabric tells, people know by now
            local, world = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
            kind, number = _place(device)
            self._fabric: Any = Fabric(
                accelerator=kind,
                devices=local if number is None or world > 1 else [number],
                num_nodes=max(1, world // local),
                strategy="ddp" if world > 1 else "auto",
                precision=cast("Any", precision),
            )
            try:
                _meet_again("gloo" if kind == "cpu" else "nccl")
                self._fabric.launch()
            except Exception as error:
                raise LostProcessError(
                    f"the {world} processes of this run did not find each other ({error}). Start them with torchrun, "
                    "or with --devices."
                ) from error
        self.device: torch.device = self._fabric.device
        self.rank: int = self._fabric.global_rank
        self.world: int = self._fabric.world_size
        self.dtype = torch.float64 if precision == "64-true" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which the network runs at the precision that was asked for."""
        return cast("AbstractContextManager[Any]", self._fabric.autocast())

    def seed(self, number: int) -> None:
        """Let torch's own random numbers, which dropout draws, begin at a place of this number and this process."""
        own = derive(number, "torch", self.rank)
        torch.default_generator.manual_seed(own)  # a fraction of the time of `torch.manual_seed`
        if self.device.type == "cuda":
            torch.cuda.manual_seed(own)

    def average(self, model: nn.Module, *more: Tensor) -> None:
        """Average gradients and floating-point buffers over all processes in place, and what else is to be averaged.

        A parameter that only some processes reached has a gradient of 0 in the others; one that none reached has none.
        """
        if self.world == 1:
            return
        own = [p for p in model.parameters() if p.requires_grad]  # the same ones in the same order everywhere
        reached = torch.tensor([p.grad is not None for p in own], dtype=torch.float32, device=self.device)
        missing = [(place, p) for place, p in enumerate(own) if p.grad is None]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
        self.average_all([*more, reached, *grads, *(b for b in model.buffers() if b.is_floating_point())])
        for place, p in missing:
            p.grad = grads[place] if reached[place] else None

    def average_all(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over all processes."""
        if self.world == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # in the same order everywhere
            own = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in own])
            with _others_there():
                flat = self._fabric.all_reduce(flat, reduce_op="mean")
            for tensor, part in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def same_start(self, model: nn.Module) -> None:
        """Give every process the weights and buffers of the first."""
        if self.world > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                with _others_there():
                    tensor.data.copy_(self._fabric.broadcast(tensor.data, src=0))

    def total(self, *counts: float) -> list[float]:
        """The sums of these numbers over all processes."""
        if self.world == 1:
            return list(counts)
        values = torch.tensor(counts, dtype=torch.float64, device=self.device)
        with _others_there():
            return cast("list[float]", self._fabric.all_reduce(values, reduce_op="sum").tolist())

    def joined(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of `(b, ...)` of every process, one after the other in the order of the ranks."""
        if self.world == 1:
            return dict(parts)
        with _others_there():
            return {name: self._fabric.all_gather(part).flatten(0, 1) for name, part in parts.items()}

    def own(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `joined` put together, cut to the share of this process."""
        return {name: part.chunk(self.world)[self.rank].to(self.device) for name, part in parts.items()}

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            with _others_there():
                self._fabric.barrier()

    @staticmethod
    def expected() -> int:
        """How many processes torchrun started; 1 without it."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @staticmethod
    def here() -> int:
        """The number of this process; 0 without torchrun."""
        return int(os.environ.get("RANK", "0"))

    @staticmethod
    def restarted() -> bool:
        """Whether torchrun started these processes anew after one of them fell."""
        return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _place(device: str | None) -> tuple[str, int | None]:
    """The kind of a device, and its number where one is given."""
    kind, _, number = (device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")
    if kind not in ("cpu", "cuda") or not (number.isdecimal() or not number):
        raise SettingError(f"device must be 'cpu', 'cuda' or one card, such as 'cuda:1'; got {device!r}.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise SettingError(f"there is no device {device!r}: torch finds {torch.cuda.device_count()} CUDA card(s).")
    return kind, int(number) if number and kind == "cuda" else None


def _meet_again(backend: str) -> None:
    """Join the processes that torchrun started anew on one machine, before Fabric does.

    Their common store still holds the addresses of those that fell, so they meet under names of their own. On several
    machines restarts are not counted alike: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun there.
    """
    known = os.environ
    alone = known.get("LOCAL_WORLD_SIZE") == known.get("WORLD_SIZE")
    if not (Workers.restarted() and alone and known.get("TORCHELASTIC_USE_AGENT_STORE") == "True"):
        return
    if torch.distributed.is_initialized():
        return
    parts: Any = torch.distributed  # which does not name these two for type checkers
    store = parts.TCPStore(known["MASTER_ADDR"], int(known["MASTER_PORT"]), is_master=False)
    own = parts.PrefixStore(f"attempt {known['TORCHELASTIC_RESTART_COUNT']}", store)
    torch.distributed.init_process_group(backend, store=own, rank=Workers.here(), world_size=Workers.expected())


@contextmanager
def _others_there() -> Iterator[None]:
    """Say it when another process does not answer any more."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcessError(
            f"another process of this run is gone; what it said is above. Continue from the last checkpoint with "
            f"--resume. ({str(error).splitlines()[0].partition('. ')[0]})"
        ) from error


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all these tensors together."""
    return torch.nn.utils.get_total_norm(list(tensors))
