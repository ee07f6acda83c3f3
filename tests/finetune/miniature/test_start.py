"""The models that training begins with."""

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from finetune.miniature.reading import QUESTIONS, UNSAID, ReadingSettings, answers, teach_reading
from finetune.miniature.start import SHIPPED, refiner_weights
from finetune.model.miniature import Miniature
from finetune.model.text import TextStack
from imagesets.world.captions import draw_caption
from imagesets.world.scenes import draw_scene


def _unet(name: str, seed: int) -> UNet2DConditionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(SHIPPED / name / "unet")).eval()


def test_answers_are_the_same_whichever_thing_is_named_first() -> None:
    for seed in range(100):
        scene = draw_scene(np.random.default_rng(seed), num_things=2)
        captions = {draw_caption(scene, np.random.default_rng(turn)) for turn in range(20)}
        full = [answers(scene, caption) for caption in captions if scene.ground in caption]
        assert len(captions) > 3
        assert all(each == full[0] for each in full)
        assert all(answer in QUESTIONS[question] for question, answer in full[0].items())


def test_what_a_caption_leaves_out_is_unsaid() -> None:
    scene = draw_scene(np.random.default_rng(0), num_things=1)
    said = answers(scene, "a thing")
    assert (said["ground"], said["size"], said["other shape"]) == (UNSAID, UNSAID, UNSAID)


def test_lessons_teach_and_follow_from_their_seed() -> None:
    def taught() -> tuple[list[float], float]:
        stack = TextStack.load(Miniature(), torch.float32, torch.device("cpu"))
        losses: list[float] = []
        settings = ReadingSettings(steps=12, batch_size=16, learning_rate=1e-3, warmup_steps=2)
        teach_reading(stack, settings, 0, lambda _done, _total, loss: losses.append(loss))
        return losses, float(stack.encode(["a red star"]).pooled_prompt_embeds.detach().sum())

    (losses, pooled), again = taught(), taught()
    assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3])
    assert (losses, pooled) == again


def test_a_refiner_begins_with_what_its_base_knows() -> None:
    """With the first encoder's text zero and the target size's part taken out, base and refiner predict the same."""
    base, refiner = _unet("base", 1), _unet("refiner", 2)
    refiner.load_state_dict(refiner_weights(base, refiner))
    pooled = refiner.config.projection_class_embeddings_input_dim - 5 * refiner.config.addition_time_embed_dim
    with torch.no_grad():
        base.add_embedding.linear_1.weight[:, pooled + 4 * base.config.addition_time_embed_dim :] = 0.0
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(2, 4, 16, 16, generator=generator)
        second = torch.randn(2, 77, refiner.config.cross_attention_dim, generator=generator)
        both = torch.cat([torch.zeros(2, 77, base.config.cross_attention_dim - second.shape[2]), second], dim=-1)
        embeds = torch.randn(2, pooled, generator=generator)
        ids = torch.tensor([[64.0, 80, 0, 5, 64, 64], [30, 30, 2, 0, 48, 80]])
        timesteps = torch.tensor([5, 150])
        expected = base(latents, timesteps, both, added_cond_kwargs={"text_embeds": embeds, "time_ids": ids}).sample
        ids[:, 4] = torch.tensor([2.5, 7.5])
        given = {"text_embeds": embeds, "time_ids": ids[:, :5]}
        assert torch.allclose(refiner(latents, timesteps, second, added_cond_kwargs=given).sample, expected, atol=1e-5)
