"""Training over several processes, data parallel: who has which rows, and sums over all of them.

Every rank holds the whole model and takes its share of each step's micro-batches; sums of gradients, losses and counts
make them one. The group is an argument, never the process's default group, so ranks can be threads of one process too.
Shapes: N = rows of a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.torch_internals import gloo_group


class RankLost(RuntimeError):
    """Another rank ended, or did not answer in time; the weights are those of the last whole step."""


class RanksDiffer(RuntimeError):
    """Ranks that must hold the same weights do not."""


class Group(Protocol):
    """What torch's process groups of all kinds can do, as far as it is needed here."""

    def allreduce(self, tensors: list[Tensor], opts: dist.AllreduceOptions, /) -> dist.Work: ...


class Store(Protocol):
    """What torch's stores of all kinds can do, as far as it is needed here."""

    def set_timeout(self, timeout: timedelta, /) -> None: ...


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes that train together. All of them must call the same functions in the same order.

    Sums are the same bits on every rank: gloo and NCCL add in one place and send the result to all.
    """

    rank: int = 0
    count: int = 1
    group: Group | None = None
    """What sums go through; none for one rank, whose sums are what it has."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ValueError(f"rank ({self.rank}) must lie between 0 and the {self.count} ranks there are")
        if self.count > 1 and self.group is None:
            raise ValueError(f"{self.count} ranks need a group to sum over; make one with model.parallel.ranks.join")

    def rows(self, rows_N: np.ndarray, micro_batch_rows: int) -> np.ndarray:
        """This rank's share of a step's rows, in turns of a micro-batch: (N / count,).

        Micro-batch m of all ranks together is micro-batch m of one process whose micro-batches are `count` times as
        large. Raises ValueError if the rows cannot be dealt evenly.
        """
        if len(rows_N) % (micro_batch_rows * self.count):
            raise ValueError(
                f"batch_rows ({len(rows_N)}) must be a multiple of micro_batch_rows ({micro_batch_rows}) times the "
                f"number of ranks ({self.count})"
            )
        return rows_N.reshape(-1, self.count, micro_batch_rows)[:, self.rank].reshape(-1)

    def every_row(self, of_rows: Tensor, micro_batch_rows: int) -> Tensor:
        """Values of all ranks' rows in the order of the step, (N, ...), of those of this rank's share of them."""
        if self.group is None:
            return of_rows
        shape = of_rows.shape[1:]
        dealt = of_rows.new_zeros(len(of_rows) // micro_batch_rows, self.count, micro_batch_rows, *shape)
        dealt[:, self.rank] = of_rows.view(-1, micro_batch_rows, *shape)
        return self.sum(dealt).view(-1, *shape)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, of any shape; the tensor itself if there is but one."""
        if self.group is None:
            return tensor
        summed = tensor.clone()
        self._reduce([summed])
        return summed

    def sum_numbers(self, numbers: Iterable[int], device: torch.device) -> list[int]:
        """Sums of whole numbers; `device` is where the group works."""
        if self.group is None:
            return list(numbers)
        summed: list[int] = self.sum(torch.tensor(list(numbers), dtype=torch.int64, device=device)).tolist()
        return summed

    def sum_gradients(self, model: nn.Module) -> None:
        """Add the gradients of all ranks, in place; a parameter that this rank's rows did not reach counts as zeros."""
        if self.group is None:
            return
        parameters = list(model.parameters())
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._reduce([p.grad for p in parameters if p.grad is not None])

    def require_same(self, model: nn.Module) -> None:
        """Compare a checksum of all weights, bit by bit; RanksDiffer on every rank if one has others."""
        if self.group is None:
            return
        sums = [weight.detach().view(torch.int32).sum(dtype=torch.int64) for weight in model.parameters()]
        ours = torch.stack([torch.stack(sums), -torch.stack(sums)])
        highest, negated_lowest = ours.clone().unbind()
        self._reduce([highest, negated_lowest], maximum=True)
        if not torch.equal(highest, -negated_lowest):
            raise RanksDiffer(
                f"the weights of the {self.count} ranks are no longer the same bits; ranks need the same hardware, "
                "number of threads and versions: run with num_ranks 1, or on one kind of device"
            )

    def _reduce(self, tensors: list[Tensor], maximum: bool = False) -> None:
        """Sums, or maxima, over ranks, in place."""
        assert self.group is not None
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp(dist.ReduceOp.MAX if maximum else dist.ReduceOp.SUM)
        try:
            for work in [self.group.allreduce([tensor], options) for tensor in tensors]:
                work.wait()
        except RuntimeError as error:
            raise RankLost(f"rank {self.rank} of {self.count} lost another: {error}") from error


ALONE = Ranks()


def meet(path: Path, rank: int, count: int, device: torch.device, timeout: timedelta) -> Ranks:
    """`join` the other processes of this machine through the file `path`, which must not exist before the first
    comes."""
    stores: Any = dist  # torch's stubs do not export them
    return join(stores.FileStore(str(path), count), rank, count, device, timeout)


def join(store: Store, rank: int, count: int, device: torch.device, timeout: timedelta) -> Ranks:
    """Meet the other ranks through `store` and become number `rank` of `count`; returns when all have come.

    NCCL where `device` is a GPU, gloo over the loopback interface on CPU. `timeout` is how long a rank waits for
    another, at the meeting and in every sum; after that, or when one has ended: RankLost.
    """
    store.set_timeout(timeout)
    groups: Any = dist  # torch's stubs have NCCL in builds with it alone
    try:
        if device.type == "cuda":
            return Ranks(rank, count, groups.ProcessGroupNCCL(store, rank, count, timeout))
        return Ranks(rank, count, gloo_group(store, rank, count, timeout))
    except RuntimeError as error:
        raise RankLost(f"rank {rank} of {count} did not meet the others: {error}") from error
