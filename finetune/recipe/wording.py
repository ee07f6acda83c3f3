"""How a source's captions are worded anew for each showing. Doing it is the work of `imagesets`."""

from typing import Annotated

from pydantic import Strict, StringConstraints

from finetune.recipe.base import Count, CountOrZero, Flag, Needs, Probability, Settings, Text

Separator = Annotated[
    str, Strict(), StringConstraints(pattern=r"^[^\r\n]+$"), Needs("text that is not empty, on one line")
]


class Wording(Settings):
    """What is done to each caption at each showing, before the trigger is put in."""

    separator: Separator = ", "
    """What stands between the tags of a caption; they are told apart by it without the spaces around it."""
    keep_first: CountOrZero = 0
    """How many tags at the front keep their place and are never dropped."""
    keep_separator: Text = ""
    """A sign such as `|||`: in a caption that has it, what stands before the first keeps its place and is never \
dropped, what stands behind the second neither, and `keep_first` does not count. Prefix and suffix may have it, too."""
    secondary_separator: Text = ""
    """A sign such as `;;;` that holds several tags together as one; the separator stands for it in the end."""
    shuffle: Flag = False
    """Whether the other tags stand in another order at each showing, so that order is not learned."""
    tag_dropout: Probability = 0.0
    """How often each of the other tags is left out. Dropping captions whole is `training.caption_dropout`."""
    wildcards: Flag = False
    """Whether of `{red|blue}` in a caption one is taken; they may lie in one another, and `\\{` is a plain brace."""
    choose_line: Flag = False
    """Whether each line of a caption is a caption of its own, and they are taken in turn; otherwise all are joined."""
    prefix: Text = ""
    """Text put before each caption; it is not shuffled or dropped."""
    suffix: Text = ""
    """Text put behind each caption; it is not shuffled or dropped."""
    variants: Count | None = 8
    """How many wordings each caption (with `choose_line` each line) has, taken in turn, so that frozen text encoders \
can encode them beforehand; null words captions anew at each showing, which takes a text encoder in training."""
