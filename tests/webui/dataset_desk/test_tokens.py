"""Counts while one writes: the inspection's own, and every letter is either read or beyond."""

import pytest

from finetune.model.token_counts import open_token_counter
from finetune.recipe.schema import HubModel, MiniatureModel
from webui.dataset_desk.tokens import LIMITS, Model, count_tokens

LONG = ", ".join(f"tag number {index} of a caption" for index in range(60))


@pytest.mark.parametrize("model", ["sdxl", "miniature"])
@pytest.mark.parametrize("text", ["", "a red hat, sky!!!", "one\ntwo  three", LONG, "ü" * 200])
def test_counts_are_the_inspections(model: Model, text: str) -> None:
    from finetune.model.text_tokens import Reading

    chosen = MiniatureModel() if model == "miniature" else HubModel(id="stabilityai/stable-diffusion-xl-base-1.0")
    clean = " ".join(text.split())
    for limit in LIMITS:
        counted = count_tokens(text, model, limit)
        by_inspection = open_token_counter(chosen, Reading(limit))([clean])[0]
        assert counted.counts == {each.tokenizer: each.count for each in by_inspection}
        assert "".join(counted.chunks) + counted.beyond == clean
        assert counted.beyond.strip() == max((each.beyond for each in by_inspection), key=len)
        assert len(counted.chunks) <= limit // 75
        assert bool(counted.beyond.strip()) == any(count > limit for count in counted.counts.values())


def test_the_line_says_how_many_of_how_many() -> None:
    counted = count_tokens("a red hat", "sdxl", 75)
    assert counted.line == "3 tokens by both tokenizers; up to 75 are read"
    assert "SDXL" in counted.origin or "stable-diffusion-xl" in counted.origin
    assert "in 2 chunks of 75" in count_tokens(LONG, "sdxl", 150).line
    with pytest.raises(AssertionError):
        count_tokens("a", "sdxl", 100)
