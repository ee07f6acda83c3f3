"""What only a card can show: the default optimizer there, bf16 and fp16, and a resume that goes on."""

import math

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_card_trains_previews_and_resumes(job, precision: str) -> None:
    settings = ["training.device=cuda", f"training.precision={precision}", "preview.prompts=[a star]",
                "preview.num_inference_steps=4"]  # fmt: skip
    job.train(*settings, driver=["stop-at", "4"], code=143)
    job.train(*settings, "--resume")
    losses = job.losses()
    assert sorted(losses) == list(range(1, 10))
    assert all(math.isfinite(loss) for loss, *_ in losses.values())
    [first, *_] = [event for event in job.events() if event["kind"] == "run_started"]
    assert first["environment"]["device"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("kind", ["adamw8bit", "paged_adamw8bit"])
def test_eight_bit_optimizers_resume_to_the_same_bits(job, kind: str) -> None:
    settings = ["training.device=cuda", f"training.optimizer.kind={kind}", "adapter.unet.rank=64"]
    job.train(*settings, "name=whole")
    job.train(*settings, "name=broken", driver=["stop-at", "4"], code=143)
    job.train(*settings, "name=broken", "--resume")
    assert job.state_of("broken") == job.state_of("whole")
