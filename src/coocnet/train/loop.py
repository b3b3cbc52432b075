"""Learning a co-occurrence filter over frozen maps: epochs of mined tuples, the best one kept, then the gate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coocnet import ops
from coocnet.describe import Describer
from coocnet.errors import InputError, TrainingError
from coocnet.nn import CooccurrenceFilter, new_filter
from coocnet.recipe import LEARNABLE, REVISION, Recipe
from coocnet.train.checkpoint import CHECKPOINT, State, adam_tensors, restore_adam
from coocnet.train.examples import Examples
from coocnet.train.judge import Gate, Trained, precisions
from coocnet.train.maps import Maps
from coocnet.train.mining import Batch, Drawn, batch_of, draw, hard_negatives
from coocnet.train.rows import Rows
from coocnet.train.settings import WHOLE_BATCH, Settings, digest_of
from coocnet.whitening import Whitening, fit_pairs, fit_pca

_CHECKPOINT_EVERY_S = 60.0
_FIT_PICTURES = 2000
_MOST_PAIRS = 20000
_PAIRS_SHRINKAGE = 0.1  # pairs of few things leave most directions undetermined


_LOSSES: dict[str, Callable[[Tensor, list[Tensor], Settings], Tensor]] = {
    "contrastive": lambda rows, masks, s: ops.contrastive_loss(rows, *masks, margin=s.margin),
    "triplet": lambda rows, masks, s: ops.triplet_loss(rows, *masks, margin=s.margin),
    "softmax": lambda rows, masks, s: ops.softmax_loss(rows, *masks, temperature=s.temperature),
    "ap": lambda rows, masks, s: ops.average_precision_loss(rows, *masks, temperature=s.temperature),
}


@dataclass(frozen=True)
class Progress:
    """What a training tells while it goes on.

    Attributes:
        what: the step of the work, in words.
        done: of it so far.
        total: in all.
        epoch: the epoch it is in.
        loss: mean over the steps of this epoch so far; None where there is none.
        history: the record of every epoch that is done.
    """

    what: str
    done: int
    total: int
    epoch: int
    loss: float | None
    history: Sequence[dict[str, float]]


Watch = Callable[[Progress], None]


def need_learnable(recipe: Recipe) -> None:
    """Refuses a recipe that no filter can be learned for.

    Raises:
        InputError: its pooling reads no filter, it has several scales, or a filter already.
    """
    if recipe.pooling not in LEARNABLE:
        raise InputError(
            f"the recipe's pooling {recipe.pooling!r} reads no co-occurrence tensor; a filter is learned for one of "
            f"{', '.join(LEARNABLE)}"
        )
    if len(recipe.scales) > 1:
        raise InputError(
            f"a filter is learned at one scale, the recipe {recipe.name!r} has {len(recipe.scales)}: give it one; "
            "the filter then serves a recipe of several too"
        )
    if recipe.cooccurrence.filter:
        raise InputError(f"the recipe {recipe.name!r} has a learned filter already; give the one it was learned for")


class Trainer:
    """One training, which goes on from its checkpoint where there is one.

    Args:
        describer: the frozen network, and the recipe the filter is for.
        parts: pictures to learn from, to choose the epoch by, and for the gate.
        settings: how.
        folder: holds the checkpoint.
        maps: the feature maps.
        watch: told what goes on.

    Attributes:
        uncached: pictures whose maps found no room, so that they go through the network whenever they are needed.

    Raises:
        InputError: the recipe's pooling reads no filter, or it has one.
        TrainingError: pictures that nothing can be learned from, or a checkpoint of another run.
    """

    def __init__(
        self,
        describer: Describer,
        parts: tuple[Examples, Examples, Examples],
        settings: Settings,
        *,
        folder: str | os.PathLike[str],
        maps: Maps,
        watch: Watch | None = None,
    ) -> None:
        recipe = describer.recipe
        need_learnable(recipe)
        names = ("the pictures to learn from", "the pictures to choose the epoch by", "the pictures of the gate")
        for examples, name in zip(parts, names, strict=True):
            examples.need_learnable(name)
        self._describer, self._recipe, self._settings = describer, recipe, settings
        self._train, self._choosing, self._judging = parts
        self._checkpoint, self._maps, self._watch = Path(folder) / CHECKPOINT, maps, watch
        self._device = describer.device
        self._filter = self._direct()
        self._start = {name: value.detach().clone() for name, value in self._filter.named_parameters()}
        self._optimiser = torch.optim.Adam(self._filter.parameters())
        self._rows = Rows(describer, maps, mixed_precision=settings.precision == "bfloat16")
        queries = min(settings.queries_per_epoch, len(self._train.queries))
        self._steps = -(-queries // settings.tuples_per_step)
        self._fit_on = np.sort(
            np.random.default_rng([settings.seed, 2]).permutation(len(self._train))[:_FIT_PICTURES]
        )
        self._memory = torch.zeros(0), np.zeros(0)
        self.uncached = 0
        self._state = State(self._run())
        self._started = time.monotonic()

    def run(self) -> Trained:
        """Trains to the end, from the checkpoint on if there is one; one is written between steps, every minute.

        However it was interrupted, the result is that of an uninterrupted run, bit by bit on one processor with as
        many threads.

        Raises:
            TrainingError: pictures that cannot be described, or a checkpoint of another run or damaged.
            InputError: the disk is full or read-only.
        """
        held = State.load(self._checkpoint, self._state.run)
        paths = [self._train.paths[at] for at in self._ever_needed().tolist()]
        self.uncached = self._maps.prepare([*self._choosing.paths, *paths, *self._judging.paths], self._tell)
        self._started = time.monotonic()
        if held is not None:
            self._restore(held)
        if not self._state.history:
            self._turn()
        saved = time.monotonic()
        while not self._state.finished:
            while self._state.step < self._steps:
                self._step()
                if time.monotonic() - saved > _CHECKPOINT_EVERY_S:
                    self._save()
                    saved = time.monotonic()
            self._turn()
        return self._outcome()

    # One step

    def _step(self) -> None:
        state, per_step = self._state, self._settings.tuples_per_step
        tuples = state.tensors["epoch.tuples"].numpy()[state.step * per_step : (state.step + 1) * per_step]
        whole = self._settings.loss in WHOLE_BATCH
        batch = batch_of(tuples, self._train, matches=self._settings.matches, whole=whole)
        paths = [self._train.paths[at] for at in batch.pictures.tolist()]
        loss = self._loss(self._seen(self._rows.under(self._filter, paths)), batch)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self._filter.parameters(), self._settings.clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise TrainingError(
                f"the loss or its gradient is no longer finite, in step {state.step + 1} of epoch {state.epoch}: "
                f"begin anew with a lower learning rate than {self._settings.learning_rate:g} (--lr, --restart)"
            )
        done = (state.epoch - 1) * self._steps + state.step
        rate = self._settings.learning_rate_at(done, self._settings.epochs * self._steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        with torch.no_grad():
            for name, parameter in self._filter.named_parameters():
                parameter.lerp_(self._start[name], min(1.0, rate * self._settings.pull))
        state.loss += float(loss.detach())
        state.step += 1
        self._tell("Learning", state.step, self._steps)

    def _loss(self, rows: Tensor, batch: Batch) -> Tensor:
        s = self._settings
        masks = [one.to(rows.device) for one in (batch.queries, batch.positive, batch.negative)]
        remembered, clusters = self._memory
        if len(remembered):
            own = self._train.clusters[batch.pictures[batch.queries.numpy()]]
            wrong = torch.from_numpy(own[:, None] != clusters[None]).to(rows.device)
            rows = torch.cat([rows, remembered])
            masks = [masks[0], torch.cat([masks[1], torch.zeros_like(wrong)], 1), torch.cat([masks[2], wrong], 1)]
        return _LOSSES[s.loss](rows, masks, s)

    def _seen(self, rows: Tensor) -> Tensor:
        """Rows as the loss sees them: unit length, whitened if the settings say so."""
        white = self._state.part("white")
        if not white:
            return rows
        mean, projection = (white[name].to(rows.device) for name in ("mean", "projection"))
        return ops.unit_rows((rows - mean) @ projection.T)

    # Between two epochs

    def _turn(self) -> None:
        """Measures the filter as it is, keeps it if it is the best, and mines the next epoch's tuples."""
        state, s = self._state, self._settings
        rows = np.zeros((len(self._train), self._describer.dim), np.float32)
        self._describe(rows, self._fit_on)
        self._measure(rows[self._fit_on])
        best = max(state.history, key=lambda record: record["map"])
        over = s.patience and state.epoch - state.best_epoch >= s.patience
        if best["epoch"] == state.epoch:
            state.best_epoch = state.epoch
            state.keep("best", self._filter.state_dict())
            over = False
        state.finished = state.epoch >= s.epochs or bool(over)
        if not state.finished:
            if state.epoch == 0 and s.whitened_dim:
                dim = min(s.whitened_dim, len(self._fit_on) // 2)
                white = fit_pca(rows[self._fit_on], dim=dim, at_most=True)
                both = {"mean": white.mean, "projection": white.projection}
                state.keep("white", {name: torch.from_numpy(one).float() for name, one in both.items()})
            drawn = self._drawn(state.epoch + 1)
            asked = np.union1d(drawn.queries, drawn.pool)
            self._describe(rows, np.setdiff1d(asked, self._fit_on))
            seen = self._all_seen(rows, asked)
            tuples = hard_negatives(seen, self._train.clusters, drawn, s.mined)
            state.keep("epoch", {"tuples": torch.from_numpy(tuples)})
            if self._with_memory:
                state.keep("start", self._filter.state_dict())
                self._remember(seen, drawn)
            state.epoch, state.step, state.loss = state.epoch + 1, 0, 0.0
        self._save()
        self._tell("Epoch", state.epoch, s.epochs)

    def _drawn(self, epoch: int) -> Drawn:
        s = self._settings
        return draw(
            self._train, queries=s.queries_per_epoch, matches=s.matches, pool=s.pool_size, seed=s.seed, epoch=epoch
        )

    def _ever_needed(self) -> np.ndarray:
        """The pictures to learn from that this training will look at."""
        needed = np.zeros(len(self._train), bool)
        needed[self._fit_on] = True
        for epoch in range(1, self._settings.epochs + 1):
            drawn = self._drawn(epoch)
            for some in (drawn.queries, drawn.pool, drawn.matches[drawn.matches >= 0]):
                needed[some] = True
            if needed.all():
                break
        return np.flatnonzero(needed)

    def _describe(self, rows: np.ndarray, pictures: np.ndarray) -> None:
        """Puts rows of some pictures, under the filter as it is, where they belong."""
        rows[pictures] = self._all_rows(self._filter, self._train, pictures, "Describing, to mine")

    def _all_seen(self, rows: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """Rows of some pictures as the loss sees them."""
        white = self._state.part("white")
        if not white:
            return rows
        seen = np.zeros((len(rows), len(white["projection"])), np.float32)
        seen[pictures] = self._seen(torch.from_numpy(rows[pictures])).numpy()
        return seen

    @property
    def _with_memory(self) -> bool:
        return self._settings.memory and self._settings.loss in WHOLE_BATCH

    def _remember(self, seen: np.ndarray, drawn: Drawn) -> None:
        self._memory = torch.from_numpy(seen[drawn.pool]).to(self._device), self._train.clusters[drawn.pool]

    def _measure(self, fit_rows: np.ndarray) -> None:
        state = self._state
        rows = self._all_rows(self._filter, self._choosing, np.arange(len(self._choosing)), "Describing, to measure")
        moved = sum(float(((p.detach() - self._start[n]) ** 2).sum()) for n, p in self._filter.named_parameters())
        count = sum(one.numel() for one in self._start.values())
        state.history.append(
            {
                "epoch": state.epoch,
                "loss": state.loss / max(1, state.step),
                "map": float(np.mean(precisions(self._choosing, rows, self._recipe, fit_rows))),
                "map_raw": float(np.mean(precisions(self._choosing, rows, self._recipe, None))),
                "moved": (moved / count) ** 0.5,
                "time_s": time.monotonic() - self._started,
            }
        )
        self._started = time.monotonic()

    # At the end

    def _outcome(self) -> Trained:
        best = self._direct()
        best.load_state_dict(self._state.part("best"))
        best.to(self._device)
        every = np.arange(len(self._judging))
        found = []
        for one in (None, best):
            fit_rows = self._all_rows(one, self._train, self._fit_on, "The gate")
            rows = self._all_rows(one, self._judging, every, "The gate")
            found.append(precisions(self._judging, rows, self._recipe, fit_rows))
        parameters = sum(one.numel() for one in best.parameters())
        state = self._state
        return Trained(best, state.history, state.best_epoch, Gate.of(*found), parameters)

    def whitening_of_pairs(self, learned: CooccurrenceFilter, provenance: dict[str, str]) -> Whitening:
        """A whitening learned from the pairs that were trained on, of rows under a filter.

        Args:
            learned: the filter.
            provenance: what the whitening is to say of itself.

        Raises:
            WhiteningError: the pairs determine none.
        """
        pairs = self._train.all_pairs(_MOST_PAIRS, self._settings.seed)
        used, place = np.unique(pairs, return_inverse=True)
        rows = self._all_rows(learned, self._train, used, "The whitening")
        place = place.reshape(pairs.shape)
        return fit_pairs(
            rows,
            place[:, 0],
            place[:, 1],
            dim=self._recipe.dim,
            at_most=True,
            shrinkage=_PAIRS_SHRINKAGE,
            provenance=provenance,
        )

    # Rows under a filter

    def _direct(self) -> CooccurrenceFilter:
        s = self._settings
        return new_filter(
            s.kind,
            self._describer.tap.channels,
            radius_cells=self._recipe.cooccurrence.radius_cells,
            rank=s.rank,
            seed=s.seed,
        ).to(self._device)

    def _all_rows(
        self, learned: CooccurrenceFilter | None, examples: Examples, pictures: np.ndarray, what: str
    ) -> Float[np.ndarray, "n dim"]:
        return self._rows.of_many(
            learned, examples.paths, pictures, lambda done, total: self._tell(what, done, total)
        )

    # The checkpoint

    def _run(self) -> str:
        pictures = [
            [list(one.paths), one.stamps(), one.clusters.tolist(), None if one.pairs is None else one.pairs.tolist()]
            for one in (self._train, self._choosing, self._judging)
        ]
        where = [REVISION, self._recipe.fingerprint(), self._describer.weights_sha256, self._settings.table()]
        return digest_of(pictures, where)

    def _save(self) -> None:
        self._state.keep("filter", self._filter.state_dict())
        self._state.keep("adam", adam_tensors(self._optimiser, self._filter))
        self._state.save(self._checkpoint)

    def _restore(self, held: State) -> None:
        self._state = held
        self._filter.load_state_dict(held.part("filter"))
        restore_adam(self._optimiser, self._filter, held.part("adam"))
        if not held.finished and self._with_memory:
            self._filter.load_state_dict(held.part("start"))
            drawn = self._drawn(held.epoch)
            rows = np.zeros((len(self._train), self._describer.dim), np.float32)
            self._describe(rows, drawn.pool)
            self._remember(self._all_seen(rows, drawn.pool), drawn)
            self._filter.load_state_dict(held.part("filter"))

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._watch:
            state = self._state
            loss = state.loss / state.step if state.step else None
            self._watch(Progress(what, done, total, state.epoch, loss, state.history))
