"""An exponential moving average of the trainable parameters, whatever is being taught.

Polyak & Juditsky 1992 (Acceleration of stochastic approximation by averaging) in the form usual for diffusion models
(Ho et al. 2020, arXiv 2006.11239, appendix B): the average is what is drawn with and exported, and training itself
never sees it. It is kept in float32, as the parameters are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from finetune.errors import AtelierError
from finetune.recipe import Recipe
from finetune.training.groups import TrainedGroup, all_parameters


def average_of(recipe: Recipe, groups: Mapping[str, TrainedGroup]) -> "WeightAverage | None":
    """Return the average that a recipe asks for, of all that is trained, or None."""
    settings = recipe.training.ema
    return None if settings is None else WeightAverage(all_parameters(groups), settings.decay)


def decay_at(decay: float, global_step: int) -> float:
    """Return how much of the average optimizer step `global_step`, from 1, leaves: min(decay, (1 + n) / (10 + n)).

    The second term is the warm-up of TensorFlow's `tf.train.ExponentialMovingAverage` with `num_updates` n, which
    diffusers' `EMAModel` has too: early on the average follows quickly, so that it forgets where training began.
    A function of the step alone, so a resumed run averages as an uninterrupted one.
    """
    return min(decay, (1 + global_step) / (10 + global_step))


class WeightAverage:
    """The average of a set of parameters.

    Args:
        parameters: what is averaged, by name, at their values before the first step; they are copied.
        decay: how much of the average a step leaves, once warmed up.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self._averages = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._swapped = False

    @property
    def averages(self) -> Mapping[str, Tensor]:
        """The averages by the parameters' names."""
        assert not self._swapped, "inside `applied` the averages lie in the parameters"
        return self._averages

    @torch.no_grad()
    def update(self, global_step: int) -> None:
        """Take the parameters as they are after optimizer step `global_step`, from 1, into the average."""
        assert not self._swapped, "the parameters hold the average now"
        weight = 1.0 - decay_at(self.decay, global_step)
        current = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._averages.values()), current, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters hold the averages inside the block, and exactly what they held before after it.

        The tensors change places and nothing is computed, so not a bit differs, also where the block fails.
        """
        assert not self._swapped, "applied twice"
        self._exchange()
        self._swapped = True
        try:
            yield
        finally:
            self._exchange()
            self._swapped = False

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Go on from averages that were saved.

        Raises:
            AtelierError: they are of other parameters.
        """
        if {name: value.shape for name, value in averages.items()} != {
            name: value.shape for name, value in self._averages.items()
        }:
            raise AtelierError("the checkpoint's averaged weights are of other parameters than the recipe trains.")
        for name, value in averages.items():
            self._averages[name].copy_(value)

    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._averages[name] = self._averages[name], parameter.data
