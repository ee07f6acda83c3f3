"""Train a recipe in one of several processes and print a hash of what it holds afterwards.

Used by tests as `torch.distributed.run … ranks.py RECIPE KEY=VALUE …`: a line of JSON a process, with its rank.
"""

import hashlib
import json
import sys
from collections.abc import Mapping

from accelerate import Accelerator
from torch import Tensor

from finetune.recipe import load_recipe
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.loop import optimizer_step
from finetune.training.signals import StopRequest
from finetune.training.trainer import assemble


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    recipe = load_recipe(sys.argv[1], sys.argv[2:])
    accelerator = Accelerator(cpu=True)
    pictures = plan_pictures(recipe, scan_pictures(recipe))
    state = assemble(recipe, pictures, accelerator, None, StopRequest()).state
    reports = [optimizer_step(state) for _ in range(recipe.training.steps)]
    assert state.ema is not None
    found = {
        "rank": accelerator.process_index,
        "processes": accelerator.num_processes,
        "parameters": hash_of(state.parameters),
        "averages": hash_of(state.ema.averages),
        "samples": [report.num_samples for report in reports],
        "losses": [report.loss for report in reports],
        "grad_norms": [report.grad_norm for report in reports],
    }
    sys.stdout.write(json.dumps(found) + "\n")  # one write, so that lines of two processes do not mix


if __name__ == "__main__":
    main()
