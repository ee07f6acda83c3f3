"""The page 'Dataset': what a folder of pictures is to training, what is wrong with it, and its captions to be changed.

`parts` is what the page is made of, `handlers` what happens, `words` blocks of text from a report.
"""

from webui.desk import Desk
from webui.pages.dataset.handlers import Handlers
from webui.pages.dataset.parts import add_parts


def build(desk: Desk) -> None:
    """Add the page's parts and events."""
    parts = add_parts()
    Handlers(desk, parts).connect()
