"""What a person is told when the card is full can be done, whatever the run trains."""

import re

import pytest

from finetune.recipe import load_recipe
from finetune.training.trainer import memory_advice

KINDS = {
    "lora": [],
    "full": ["adapter={kind: full, unet: {learning_rate: 1e-5}}"],
    "vae": ["adapter={kind: vae}"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_that_is_advised_exists_for_what_is_trained(kind: str) -> None:
    advice = memory_advice(load_recipe("style", KINDS[kind]))
    settings = [word.rstrip(".,") for word in re.findall(r"[a-z_.]+=[a-z0-9]\S*", advice)]
    assert "training.micro_batch_size=1" in settings
    load_recipe("style", [*KINDS[kind], *settings])
    assert ("adapter.unet.rank" in advice) == (kind == "lora")
