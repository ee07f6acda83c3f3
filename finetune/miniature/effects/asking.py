"""What is asked of the model: scenes of the world drawn from a seed, their captions, and the noise of each picture."""

from dataclasses import dataclass

from imagesets.randomness import key_to_seed, keyed_numpy
from imagesets.world.captions import full_caption
from imagesets.world.scenes import Scene, Thing, draw_scene


@dataclass(frozen=True)
class Ask:
    """One picture that is asked for.

    Attributes:
        scene: what it should show. Of places and sizes only what the prompt says is meant.
        prompt: what the model is told.
        seed: of its noise.
    """

    scene: Scene
    prompt: str
    seed: int

    @property
    def thing(self) -> Thing:
        """The lone thing, or the first of two."""
        return self.scene.things[0]


def draw_asks(seed: int, num: int, *, num_things: int = 1) -> list[Ask]:
    """Draw what is asked for, a pure function of the seed and the number of things; the first n are always the same."""
    asks = []
    for index in range(num):
        scene = draw_scene(keyed_numpy(seed, "asked", num_things, index), num_things=num_things)
        asks.append(Ask(scene, full_caption(scene), key_to_seed(seed, "asked noise", num_things, index)))
    return asks


def small_prompt(ask: Ask) -> str:
    """Say the lone thing of a scene with the word small."""
    return f"a small {ask.thing.colour} {ask.thing.shape} on a {ask.scene.ground} background"


_FREE_FORMS = (
    "{colour} {shape}",
    "{shape}, {colour}",
    "photo of a {colour} {shape}",
    "a very nice {colour} thing, like a {shape}",
)
"""Ways to ask that no caption of the training has; some words of the last the encoders have never read."""


def free_prompt(ask: Ask, index: int) -> str:
    """Say the lone thing of a scene as people type, in one of several forms by turns."""
    return _FREE_FORMS[index % len(_FREE_FORMS)].format(colour=ask.thing.colour, shape=ask.thing.shape)


def with_ground(ask: Ask, ground: str) -> str:
    """Say the lone thing of a scene on another ground."""
    article = "an" if ask.thing.colour[0] in "aeiou" else "a"
    return f"{article} {ask.thing.colour} {ask.thing.shape} on a {ground} background"
