"""What is said of a scene, in several ways, as people caption pictures."""

import numpy as np

from imagesets.world.scenes import Scene

_OPPOSITE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}


def full_caption(scene: Scene) -> str:
    """Say everything of a scene that the oracle can read, in the plainest form."""
    return f"{_things(scene, turned=False, with_size=False)} on a {scene.ground} background"


def draw_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Say a scene in one of several forms; some leave out the size, a few the ground."""
    things = _things(scene, turned=bool(rng.random() < 0.5), with_size=bool(rng.random() < 0.5))
    form = rng.random()
    if form < 0.6:
        return f"{things} on a {scene.ground} background"
    if form < 0.75:
        return f"a photo of {things} on {scene.ground}"
    if form < 0.9:
        return f"{things}, {scene.ground} background"
    return things


def _things(scene: Scene, *, turned: bool, with_size: bool) -> str:
    if scene.relation is None:
        thing = scene.things[0]
        return _one(f"{scene.size} {thing.colour} {thing.shape}" if with_size else f"{thing.colour} {thing.shape}")
    first, second = scene.things
    relation = scene.relation
    if turned:
        first, second, relation = second, first, _OPPOSITE[relation]
    return f"{_one(f'{first.colour} {first.shape}')} {relation} {_one(f'{second.colour} {second.shape}')}"


def _one(thing: str) -> str:
    """Put the article before a thing."""
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"
