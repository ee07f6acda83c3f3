"""Draws are functions of (seed, purpose, step, sample) and of nothing else."""

import torch

from finetune.training.randomness import BatchGenerator

_KEYS = ["0.0", "1.0", "2.0", "2.1"]


def _draws(generator):
    return {
        "normal": generator.normal("noise", (4, 3, 5)),
        "uniform": generator.uniform("share"),
        "integers": generator.integers("timestep", 0, 999),
    }


def test_draws_do_not_depend_on_who_shares_the_batch_or_its_order():
    together = _draws(BatchGenerator(1, 2, _KEYS))
    alone = [_draws(BatchGenerator(1, 2, [key])) for key in _KEYS]
    backwards = _draws(BatchGenerator(1, 2, _KEYS[::-1]))
    for name, drawn in together.items():
        assert torch.equal(drawn, torch.cat([single[name] for single in alone]))
        assert torch.equal(drawn, backwards[name].flip(0))


def test_draws_do_not_depend_on_earlier_draws_or_the_global_generator():
    generator = BatchGenerator(1, 2, _KEYS)
    first = generator.normal("noise", (8,))
    torch.manual_seed(99)
    generator.uniform("something else")
    assert torch.equal(generator.normal("noise", (8,)), first)


def test_each_part_of_the_key_changes_the_draw():
    drawn = [
        BatchGenerator(seed, step, [key]).normal(purpose, (8,))
        for seed, step, key, purpose in (
            (1, 2, "0.0", "noise"),
            (0, 2, "0.0", "noise"),
            (1, 3, "0.0", "noise"),
            (1, 2, "0.1", "noise"),
            (1, 2, "0.0", "posterior"),
            (12, 0, "0.0", "noise"),
            (1, 20, ".0", "noise"),
        )
    ]
    assert torch.cat(drawn).unique(dim=0).shape[0] == len(drawn)


def test_samples_of_a_batch_draw_apart():
    normal = BatchGenerator(0, 1, [str(index) for index in range(300)]).normal("noise", (64,))
    assert abs(float(torch.corrcoef(normal)[0, 1:].mean())) < 0.05
    assert normal.unique(dim=0).shape[0] == 300
