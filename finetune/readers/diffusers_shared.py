"""What diffusers' two ways of reading a file have in common: words, and what becomes of an encoder's names."""

from finetune.naming.components import COMPONENTS, Component
from finetune.readers.reading import Limit, Tally

DORA = Limit(
    "DoRA",
    "it leaves `dora_scale` out of kohya's files, so plain LoRA is applied",
    "atelier lora convert FILE --to diffusers",
)


KIND = Limit(
    "LoHa, LoKr and the like",
    "it reads only LoRA of two factors here, and refuses this file",
    "atelier lora convert FILE --to diffusers --as-lora RANK",
)


_NO_OUT = Limit(
    "encoders without out_proj",
    "it tells old names of an encoder by its out_proj or its feed-forward parts; without out_proj it leaves q, k and v",
    "atelier lora convert FILE --to diffusers",
)


NO_MODULE = "no module of that name; a warning says so, or an error where the component has no other"


WITHOUT_TEXT_MODEL = (
    "lacks `text_model.`: only transformers 5.6 and later have such names; with older ones it is no module's, and an "
    "encoder without any raises"
)


def leave_without_out(tally: Tally, component: Component) -> None:
    """Leave what diffusers leaves of an encoder under names of before peft, by which it tells the kind of names."""
    own = [(entry, module) for entry, module in tally.taken if module[0] == component]
    if any(module[1].endswith("out_proj") for _, module in own):
        return
    has_feed_forward = any(module[1].endswith(("fc1", "fc2")) for _, module in own)
    tally.limit(_NO_OUT)
    if not has_feed_forward:
        tally.refuse(f"{own[0][0].stem}: {_NO_OUT.text}: an error ends the loading")
    for taken in own:
        if not (has_feed_forward and taken[1][1].endswith(("fc1", "fc2", "text_projection"))):
            tally.taken.remove(taken)
            tally.leave(taken[0].keys.values(), _NO_OUT.text, is_limit=True)


def refuse_lost_components(tally: Tally) -> None:
    """Refuse a file of which a component has keys, but none that is a module's: peft raises there."""
    taken = {module[0] for _, module in tally.taken}
    lost = [left for left in tally.left if left.reason == NO_MODULE]
    for component in COMPONENTS:
        stems = [entry.stem for entry in tally.contents.entries if entry.component == component]
        keys = [left.key for left in lost if left.key.startswith(tuple(stems))] if stems else []
        if keys and component not in taken:
            tally.refuse(f"{keys[0]}: no key of {component} is a module's: an error ends the loading")
