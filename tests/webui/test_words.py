"""Text is shown letter by letter, and an error of ours is told in its own words, as text."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("gradio", reason="the page's packages are not installed: requirements-page.txt")

import gradio as gr

from finetune.errors import DataError, RecipeError
from imagesets.errors import ImagesetError
from webui.words import as_text, lines_as_text, told


@given(st.text())
def test_text_holds_no_markup_and_is_the_same_to_a_reader(text: str) -> None:
    shown = as_text(text)
    assert not set("<>\"'") & set(shown)
    assert html.unescape(shown) == html.unescape(html.unescape(shown).replace("&", "&amp;"))
    assert html.unescape(shown) == text
    assert set(lines_as_text(text).replace("<br>", "")) & set("<>") == set()


@pytest.mark.parametrize("error", [RecipeError, DataError, ImagesetError])
def test_our_errors_become_a_toast_of_text(error: type[Exception]) -> None:
    @told
    def handler(_value: str) -> None:
        raise error("<img src=x onerror=alert(1)>:\nnot this")

    with pytest.raises(gr.Error) as raised:
        handler("x")
    assert raised.value.message == "&lt;img src=x onerror=alert(1)&gt;:<br>not this"
    assert not raised.value.print_exception, "it is no slip of ours, so the page's log stays quiet"


def test_slips_of_ours_are_not_hidden_and_answers_pass_through() -> None:
    @told
    def divide(by: int) -> float:
        """Divide."""
        return 1 / by

    assert divide(2) == 0.5
    assert (divide.__name__, divide.__doc__) == ("divide", "Divide.")
    with pytest.raises(ZeroDivisionError):
        divide(0)
