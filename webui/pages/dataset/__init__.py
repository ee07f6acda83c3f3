"""The page 'Dataset': what a folder of pictures is to training, what is wrong with it, and its captions to be changed.

`parts` is what the page is made of, `words` blocks of text from a report, `answers` what several handlers answer alike.
The handlers: `choosing` a folder and inspecting it, the `gallery`, `editing` one caption, `changing` many.
"""

from webui.desk import Desk
from webui.pages.dataset.answers import Answers, Histories
from webui.pages.dataset.changing import Changing
from webui.pages.dataset.choosing import Choosing
from webui.pages.dataset.editing import Editing
from webui.pages.dataset.gallery import Gallery
from webui.pages.dataset.parts import add_parts


def build(desk: Desk) -> None:
    """Add the page's parts and events."""
    parts = add_parts()
    histories = Histories(desk.places.scratch / "dataset" / "history")
    answers = Answers(parts, histories)
    editing = Editing(parts, answers, histories)
    for handlers in (
        Choosing(desk, parts, answers),
        Gallery(parts, answers),
        editing,
        Changing(parts, answers, histories, editing),
    ):
        handlers.connect()
