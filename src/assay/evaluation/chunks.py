"""The work itself, one chunk of the data at a time; each finished part is a shard and is never computed again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from assay.attacks import Result
from assay.data import Data
from assay.errors import InputError, QueriesSpent, SettingError, StoreError
from assay.evaluation import aims, defended
from assay.evaluation.journal import Journal
from assay.evaluation.shards import ADV, CLEAN, Shard
from assay.evaluation.stages import DRAWS, Stage, Suite
from assay.evaluation.store import Store
from assay.goals import Goal, Targeted, Untargeted
from assay.inputs import check_inputs
from assay.models.metered import Metered
from assay.oracle import Access, Oracle, granted_access, is_stochastic
from assay.rng import derive
from assay.threats import Threat
from assay.threats.additive import Additive

_EXAMPLES = 4  # kept in a shard for the gallery
_EXAMPLES_WITHIN = 1000  # positions whose shards keep examples; large inputs would fill the disk otherwise


@final
@dataclass(frozen=True, kw_only=True)
class Batch:
    """The samples of a chunk on the model's device, with the model's answer on them."""

    x: Tensor
    y: Tensor
    index: Tensor
    output: Tensor
    prediction: Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """Everything that is needed to compute a shard.

    Args:
        store: Where shards go; what is there already is not computed again.
        model: The model, in the mode in which it is evaluated.
        data: The samples.
        threat: What the attacker may do.
        suite: The stages to run.
        device: Where the model is.
        dtype: What inputs are converted to; None leaves them as they are.
        report: Called with every shard once it is there.
        meter: Counts what the model is asked, where that is wanted; it is the model, or inside it.
        keep: Whether answers are kept while a chunk is worked on, for an attempt that goes on.
        surrogate: What attacks that do not know of a defense attack, in runs that have such.
    """

    store: Store
    model: Any
    data: Data
    threat: Threat
    suite: Suite
    device: torch.device
    dtype: torch.dtype | None
    report: Callable[[Shard], None]
    meter: Metered | None = None
    keep: bool = False
    surrogate: Any = None

    def clean(self, start: int, stop: int) -> None:
        """Predictions on the unchanged inputs of a chunk."""
        shard = self.store.find_shard(CLEAN, start)
        if shard is None:
            began = time.perf_counter()
            with self._answers(start) as model:
                batch = self.read(start, stop, model)
            shard = Shard(
                stage=CLEAN,
                start=start,
                stop=stop,
                columns={
                    "index": batch.index,
                    "label": batch.y,
                    "prediction": batch.prediction,
                    "confidence": confidence(batch.output),
                },
                seconds=time.perf_counter() - began,
            )
            self.store.write_shard(shard)
        self.report(shard)

    def attack(self, start: int, stop: int) -> None:
        """Every stage on what the stages before it left of a chunk; without a budget on all that is right at first.

        Once the total of queries is used up, what is left of the stages is noted as not asked about.
        """
        clean = self.store.read_shard(CLEAN, start).columns
        astray = aims.led_astray(self.store.run["settings"]["goal"], clean["label"])
        alive = ((clean["prediction"] == clean["label"]) & astray).nonzero().flatten()
        best = torch.full((len(clean["index"]),), torch.inf, dtype=torch.float64)
        batch: Batch | None = None
        saving = self.store.run["settings"]["save_adv"]
        worst = self.store.find_shard(ADV, start) if saving else None
        again = saving and worst is None  # lost inputs come back only by running every stage again
        partial = False
        with self._answers(start) as model:
            for number, stage in enumerate(self.suite.stages, start=1):
                shard = None if again else self.store.find_shard(stage.name, start)
                fits = shard is not None and torch.equal(shard.columns["index"], clean["index"][alive])
                if shard is None or not fits or (shard.partial and not self.spent):
                    batch = batch or self._reread(start, stop, model)
                    if batch is None:
                        shard = shard if shard is not None and fits else _not_asked(stage, start, stop, clean, alive)
                    else:
                        shard, moved = self._stage(stage, number, start, stop, batch, alive, model)
                        if saving:  # before the stage's own shard: whoever sees the shard may rely on the inputs
                            nearer = shard.columns["distance"] < best[alive]
                            worst = self._worse(worst, shard, moved, batch, alive, nearer)
                            self.store.write_shard(worst)
                    self.store.write_shard(shard)
                best[alive] = torch.minimum(best[alive], shard.columns["distance"].double())
                if not self.store.minimal:
                    alive = alive[~shard.columns["success"].bool()]
                partial |= shard.partial
                self.report(shard)
        if not partial:
            self.store.remove_journal(start)

    @property
    def spent(self) -> bool:
        """Whether the total of queries is used up."""
        return self.meter is not None and self.meter.exhausted

    @contextlib.contextmanager
    def _answers(self, start: int) -> Iterator[Any]:
        """The model, with the answers about this chunk that an earlier attempt left."""
        if not self.keep:
            yield self.model
            return
        with Journal(self.model, self.store.journal_path(start), self.store.run["settings_hash"]) as model:
            yield model

    def _reread(self, start: int, stop: int, model: Any) -> Batch | None:
        """The samples of a chunk; None where the total does not reach for the model's answer."""
        if self.spent:
            return None
        try:
            return self.read(start, stop, model)
        except QueriesSpent:
            return None

    def read(self, start: int, stop: int, model: Any) -> Batch:
        """The samples of a chunk, checked, with the model's answer on them."""
        x, y, index = self.data.batch(start, stop)
        try:
            check_inputs(x, self.threat.bounds)
        except InputError as error:
            raise InputError(f"samples {start} to {stop - 1} (row 0 is sample {start}): {error}") from error
        x = x.to(self.device, self.dtype or x.dtype)
        y = y.to(self.device)
        access = granted_access(model)
        draws, seed = DRAWS if is_stochastic(model) else None, self.store.run["settings"]["seed"]
        oracle = Oracle(
            model, x, Untargeted(y), self.threat, access=access, eot=draws, seed=derive(seed, 0), index=index
        )
        with torch.no_grad():
            oracle.judge_clean()
            prediction = oracle.record.prediction
            output = oracle.clean() if access > Access.LABELS else prediction
        return Batch(x=x, y=y, index=index, output=output, prediction=prediction)

    def _stage(
        self, stage: Stage, number: int, start: int, stop: int, batch: Batch, alive: Tensor, model: Any
    ) -> tuple[Shard, Tensor]:
        rows = alive.to(self.device)
        began = time.perf_counter()
        allowed = self.store.run["settings"].get("max_queries")
        if len(rows):
            settings = self.store.run["settings"]
            result = defended.posed(stage, self.surrogate)(
                model,
                batch.x[rows],
                self._goal(stage, batch, rows, alive),
                seed=derive(settings["seed"], number),
                index=batch.index[alive],
                clean_output=batch.output[rows] if stage.eot is None else None,
                eot=stage.eot,
                keep_moves=not isinstance(self.threat, Additive),  # their move is the difference
                max_queries=None if allowed is None else allowed - 1,  # the clean answer is one of them
            )
        else:
            result = _nothing(batch)
        columns = {
            "index": batch.index[alive],
            "label": batch.y[rows],
            "prediction": batch.prediction[rows],
            "adv_prediction": result.prediction,
            "success": result.success,
            "distance": result.distance,
            "forwards": result.forwards,
            "backwards": result.backwards,
        }
        columns = {name: column.cpu() for name, column in columns.items()}
        shard = Shard(
            stage=stage.name,
            start=start,
            stop=stop,
            columns=columns,
            seconds=time.perf_counter() - began,
            examples=_examples(start, batch.x[rows], result, columns),
            partial=self.spent,
        )
        return shard, result.x_adv

    def _goal(self, stage: Stage, batch: Batch, rows: Tensor, alive: Tensor) -> Goal:
        """What a stage looks for on these rows."""
        settings = self.store.run["settings"]
        y, rejected = batch.y[rows], settings.get("rejected")
        if settings["goal"] == aims.UNTARGETED:
            return defended.goal(stage, y, rejected)
        output, index = batch.output[rows][:, :rejected], batch.index[alive].to(y.device)
        chosen = aims.targets(settings["goal"], y, index, output, settings["seed"], self.data.name)
        return Targeted(chosen, away=y)

    def _worse(
        self, worst: Shard | None, shard: Shard, moved: Tensor, batch: Batch, alive: Tensor, nearer: Tensor
    ) -> Shard:
        """The chunk's inputs with those put in where this stage came nearer than the stages before it."""
        inputs = worst.columns["x_adv"].clone() if worst else batch.x.detach().cpu().clone()
        inputs[alive[nearer]] = moved[nearer.to(moved.device)].to("cpu", inputs.dtype)
        columns = {"index": batch.index, "x_adv": inputs}
        return Shard(stage=ADV, start=shard.start, stop=shard.stop, columns=columns)


def run(work: Work, chunks: list[tuple[int, int]]) -> None:
    """Bring these chunks to their end: first all clean predictions, which show unusable data early.

    Raises:
        StoreError: A shard could not be written.
    """
    for start, stop in chunks:
        work.clean(start, stop)
    for start, stop in chunks:
        work.attack(start, stop)


def placement(
    model: Any, otherwise: torch.device, asked: torch.device | None = None
) -> tuple[torch.device, torch.dtype | None]:
    """Where the model's inputs go, and their floating type, as its first parameter or buffer has them.

    Args:
        model: The model.
        otherwise: For a module that has neither.
        asked: Where the user wants them.

    Raises:
        SettingError: The model is elsewhere.
    """
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                if asked is not None and torch.empty(0, device=asked).device != tensor.device:
                    raise SettingError(
                        f"device is {str(asked)!r} and the model is on {str(tensor.device)!r}: move it, "
                        f"model.to({str(asked)!r}), or leave device out."
                    )
                return tensor.device, tensor.dtype
        return asked or otherwise, None
    return asked or torch.device("cpu"), None


def missing(store: Store) -> list[tuple[str, int]]:
    """Stage and chunk of each shard that is still to come."""
    there = {stage: set(store.done(stage)) for stage in store.stages}
    return [(stage, start) for start, _ in store.chunks for stage in store.stages if start not in there[stage]]


def complete(store: Store) -> None:
    """Hold that every shard is there.

    Raises:
        StoreError: One is not.
    """
    left = missing(store)
    if left:
        stage, start = left[0]
        raise StoreError(
            f"{len(left)} shards are missing from {store.path}, the first is {store.shard_path(stage, start).name} of "
            f"stage {stage}. Continue the run with --resume."
        )


def confidence(output: Tensor) -> Tensor:
    """Highest softmax probability; 1 where the model gives decisions only."""
    if not output.is_floating_point() or output.ndim != 2:
        return torch.ones(len(output))
    return output.float().softmax(dim=1).amax(dim=1).cpu()


def _not_asked(stage: Stage, start: int, stop: int, clean: dict[str, Tensor], alive: Tensor) -> Shard:
    """What a stage knows that the total of queries did not reach for."""
    none = torch.zeros(len(alive), dtype=torch.int64)
    columns = {name: clean[name][alive] for name in ("index", "label", "prediction")}
    columns |= {
        "adv_prediction": columns["prediction"].clone(),
        "success": none.bool(),
        "forwards": none,
        "backwards": none.clone(),
    }
    columns["distance"] = torch.full((len(alive),), torch.inf, dtype=torch.float64)
    return Shard(stage=stage.name, start=start, stop=stop, columns=columns, partial=True)


def _nothing(batch: Batch) -> Result:
    none = torch.zeros(0, dtype=torch.int64)
    return Result(batch.x[:0], none.bool(), none.double(), none, none, none)


def _examples(start: int, x: Tensor, result: Result, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    found = columns["success"].nonzero().flatten()[:_EXAMPLES]
    if start >= _EXAMPLES_WITHIN or len(found) == 0:
        return {}
    rows = found.to(x.device)
    moves = {} if result.theta is None else {"example_move": result.theta[rows].float()}
    return moves | {
        "example_index": columns["index"][found],
        "example_x": x[rows].float(),
        "example_adv": result.x_adv[rows].float(),
    }
