"""A training at a moment: what it takes to go on to the same result."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from coocnet.errors import TrainingError, printable, quoted
from coocnet.output import written_whole

CHECKPOINT = "checkpoint.safetensors"
"""Its name in the folder of a training."""
_KIND = "coocnet-training-1"


@dataclass
class State:
    """Where a training stands.

    Attributes:
        run: names the pictures, the recipe and the settings; a checkpoint of another run is refused.
        epoch: the epoch it is in, from 1; 0 before the first.
        step: steps of this epoch that are done.
        loss: sum over the steps of this epoch.
        history: a record of each epoch that is done, the direct filter's first.
        best_epoch: the one with the best held-out mAP; 0 for the direct filter.
        finished: whether nothing is left to do.
        tensors: the filter's, those of the best epoch and of the beginning of this one, the optimiser's, the tuples
            of this epoch, by name.
    """

    run: str
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    finished: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        """Puts copies of tensors in the place of those under a prefix."""
        kept = {name: value for name, value in self.tensors.items() if not name.startswith(f"{prefix}.")}
        fresh = {f"{prefix}.{name}": value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        self.tensors = kept | fresh

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix."""
        return {
            name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(f"{prefix}.")
        }

    def save(self, path: Path) -> None:
        """Writes a safetensors file, whole or not at all.

        Raises:
            InputError: it cannot be written there.
        """
        facts = {name: value for name, value in vars(self).items() if name != "tensors"}
        with written_whole(path) as unfinished:
            Path(unfinished).write_bytes(save(self.tensors, {"kind": _KIND, "state": json.dumps(facts)}))

    @classmethod
    def load(cls, path: Path, run: str) -> State | None:
        """The state in a file; None where there is no file.

        Raises:
            TrainingError: it is damaged, or of another run.
        """
        name = printable(path)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TrainingError(f"the checkpoint {name} cannot be read: {error.strerror}") from error
        try:
            length = int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8 : 8 + length])["__metadata__"]
            if metadata["kind"] != _KIND:
                raise TrainingError(f"{name} is no checkpoint of a training")
            state = cls(**json.loads(metadata["state"]), tensors=load(content))
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise TrainingError(
                f"the checkpoint {name} is damaged ({quoted(error)}): delete it, or train anew"
            ) from error
        if state.run != run:
            raise TrainingError(
                f"{name} is of a training with other pictures, another recipe or other settings: to begin anew ask "
                "for that (--restart), or write to another place"
            )
        return state


def adam_tensors(optimiser: torch.optim.Adam, module: nn.Module) -> dict[str, Tensor]:
    """The moments of each parameter, by its name."""
    found: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        state: dict[str, Any] = optimiser.state[parameter]
        found |= {f"{name}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return found


def restore_adam(optimiser: torch.optim.Adam, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Puts moments back."""
    for name, parameter in module.named_parameters():
        own = {key.rpartition(".")[2]: value for key, value in tensors.items() if key.rpartition(".")[0] == name}
        if own:
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in own.items()
            }
