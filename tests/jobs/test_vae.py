"""Training the VAE as a person starts it: shown, stopped, gone on with, exported."""

import pytest
import torch
from diffusers import AutoencoderKL

VAE = """\
schema_version: 1
seed: 7
output_dir: {output_dir}
model: {{kind: miniature}}
data:
  sources: [{{kind: folder, path: {pictures}}}]
  buckets: {{kind: generated, resolution: 32, step: 16, max_aspect: 2.0}}
  crop: random
adapter: {{kind: vae, learning_rate: 1e-3}}
training:
  steps: 4
  micro_batch_size: 2
  global_batch_size: 4
  precision: fp32
  gradient_checkpointing: false
  ema: {{decay: 0.9}}
preview: {{every_steps: null, at_start: false}}
checkpoint: {{every_steps: 1, keep: 4}}
export: {{precision: fp32}}
"""


@pytest.fixture
def vae_job(job, tmp_path):
    """The same pictures, with the VAE in training."""
    job.recipe.write_text(VAE.format(output_dir=job.runs, pictures=tmp_path / "pictures"), encoding="utf-8")
    return job


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits_and_comes_out_as_a_model(vae_job, atelier) -> None:
    vae_job.train("name=whole")
    vae_job.train("name=broken", driver=["stop-at", "2"], code=143)
    output = vae_job.train("name=broken", "--resume")
    assert "lr vae 1.00e-03" in output
    assert vae_job.state_of("broken") == vae_job.state_of("whole") != vae_job.state_of("whole", 3)
    assert vae_job.losses("broken") == vae_job.losses("whole")
    assert all(event["timesteps"] == [] for event in vae_job.events("whole") if event["kind"] == "step")

    models = [
        AutoencoderKL.from_pretrained(vae_job.runs / name / "exports" / name / "vae") for name in ("whole", "broken")
    ]
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(one, other)

    atelier("export", str(vae_job.runs / "whole"), "--step", "2")
    earlier = AutoencoderKL.from_pretrained(vae_job.runs / "whole" / "exports" / "whole-step-000002" / "vae")
    assert not torch.equal(earlier.encoder.conv_in.weight, models[0].encoder.conv_in.weight)
