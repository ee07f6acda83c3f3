"""A micro batch whose texts differ in length: what a sample gives does not depend on its neighbours."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from finetune.model.text import TextEmbeddings
from finetune.training.randomness import BatchGenerator
from finetune.training.step import train_step


class _InFloat64(nn.Module):
    """Takes a step's inputs to a model in float64 and keeps what it says, which the step rounds."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.said = None

    def forward(self, latents, timesteps, *, encoder_hidden_states, encoder_attention_mask, added_cond_kwargs, **rest):
        added = {name: value.double() for name, value in added_cond_kwargs.items()}
        self.said = self.model(
            latents.double(), timesteps, encoder_hidden_states.double(),
            encoder_attention_mask=encoder_attention_mask, added_cond_kwargs=added, **rest,
        )  # fmt: skip
        return self.said


def _embeddings(chunks):
    """Invent the embeddings of a text of so many chunks; 0 is a dropped caption's."""
    generator = torch.Generator().manual_seed(chunks)
    states = torch.randn(1, 77 * chunks, 160, generator=generator, dtype=torch.float64)
    pooled = torch.randn(1, 96, generator=generator, dtype=torch.float64)
    return TextEmbeddings(states, pooled) if chunks else TextEmbeddings(states.new_zeros(1, 77, 160), pooled * 0.0)


def _rows(batch, chunks, rows):
    """Return these rows of a batch, with the texts that belong to them."""
    text = TextEmbeddings.cat([_embeddings(chunks[row]) for row in rows])
    cut = {name: getattr(batch, name)[rows] for name in ("latents", "add_time_ids", "sample_weights")}
    names = tuple(batch.sample_names[row] for row in rows)
    return replace(
        batch, **cut, prompt_embeds=text.prompt_embeds, pooled_prompt_embeds=text.pooled_prompt_embeds,
        prompt_mask=text.prompt_mask, sample_names=names,
    )  # fmt: skip


def _step(state, batch):
    unet = _InFloat64(state.task.unet)
    unet.zero_grad()
    generator = BatchGenerator(3, 5, batch.sample_names)
    train_step(unet, state.task.noise_scheduler, state.task.objective, batch, generator)
    prediction = unet.said[0]
    (prediction.square().mean(dim=(1, 2, 3)) * batch.sample_weights).sum().backward()
    return prediction.detach(), {name: value.grad.clone() for name, value in state.parameters.items()}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_sample_gives_the_same_alone_and_among_texts_of_other_lengths(make_state, make_batch, checkpointing):
    state = make_state({"training.gradient_checkpointing": checkpointing})
    state.task.unet.double()
    for name, parameter in state.parameters.items():  # as injected, the adapter would have no part in the result
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))).double() / 8
    chunks, batch = [1, 3, 0, 2], make_batch(4)
    mixed, mixed_gradients = _step(state, _rows(batch, chunks, [0, 1, 2, 3]))
    sums = {name: torch.zeros_like(gradient) for name, gradient in mixed_gradients.items()}
    for row in range(4):
        alone, gradients = _step(state, _rows(batch, chunks, [row]))
        torch.testing.assert_close(mixed[row : row + 1], alone, rtol=0, atol=1e-10)
        sums = {name: total + gradients[name] for name, total in sums.items()}
    largest = max(float(gradient.abs().max()) for gradient in sums.values())
    for name, total in sums.items():
        torch.testing.assert_close(mixed_gradients[name], total, rtol=0, atol=1e-10 * max(1.0, largest), msg=name)
    unmasked, _ = _step(state, replace(_rows(batch, chunks, [0, 1, 2, 3]), prompt_mask=None))
    assert (unmasked - mixed)[0].abs().max() > 1e-6  # without the mask the filling is read, so the mask does something
    torch.testing.assert_close(unmasked[1], mixed[1], rtol=0, atol=1e-10)


def test_texts_of_one_length_need_no_mask():
    assert TextEmbeddings.cat([_embeddings(1), _embeddings(0)]).prompt_mask is None
    assert TextEmbeddings.cat([_embeddings(2), _embeddings(2)]).prompt_mask is None
    mixed = TextEmbeddings.cat([_embeddings(1), _embeddings(2)])
    assert mixed.prompt_mask is not None
    assert mixed.prompt_mask.tolist() == [[True] * 77 + [False] * 77, [True] * 154]
    assert mixed.zeros_like().prompt_embeds.shape == (2, 77, 160)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mask_holds_in_half_precision_too(make_state, make_batch, dtype):
    """What fills a shorter text up changes no bit, however large it is."""
    state, batch = make_state(), make_batch(2)
    mixed = _rows(batch, [1, 2], [0, 1])
    mixed = replace(mixed, prompt_embeds=mixed.prompt_embeds.float(), pooled_prompt_embeds=batch.pooled_prompt_embeds)
    filled = mixed.prompt_embeds.masked_fill(~mixed.prompt_mask[..., None], 50.0)
    generator = BatchGenerator(3, 5, batch.sample_names)
    losses = []
    for embeds in (mixed.prompt_embeds, filled):
        with torch.autocast("cpu", dtype), torch.no_grad():
            step = train_step(
                state.task.unet, state.task.noise_scheduler, state.task.objective,
                replace(mixed, prompt_embeds=embeds), generator,
            )  # fmt: skip
        losses.append(step.per_sample)
    assert torch.isfinite(losses[0]).all()
    assert torch.equal(losses[0], losses[1])
