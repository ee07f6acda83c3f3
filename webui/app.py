"""The whole page: its addresses, each built by a file of its own, behind one guard."""

from collections.abc import Callable

import gradio as gr

from webui.desk import Desk
from webui.pages import dataset, export, monitor, playground, recipe, runs

TITLE = "Atelier"

PAGES: tuple[tuple[str, str, Callable[[Desk], None]], ...] = (
    ("Runs", "", runs.build),
    ("Monitor", "monitor", monitor.build),
    ("Dataset", "dataset", dataset.build),
    ("Recipe", "recipe", recipe.build),
    ("Playground", "playground", playground.build),
    ("Export", "export", export.build),
)
"""Title, address and builder of every page, in the order they are met; the first is where one arrives."""


def build_app(desk: Desk) -> gr.Blocks:
    """Return the page, not yet served. No handler is an endpoint for others to call."""
    app = gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400))
    for title, path, _ in PAGES[1:]:
        app.route(title, f"/{path}")
    # Entered once: Gradio makes its whole server anew each time a page's block ends, a tenth of a second each.
    with app:
        for _, path, build in PAGES:
            app.current_page = path
            _add_bar(PAGES[0][0])
            build(desk)
    for function in app.fns.values():
        function.api_visibility = "private"
    return app


def _add_bar(first_title: str) -> None:
    """Add the links to the other pages; each page has a bar of its own."""
    gr.Navbar(main_page_name=first_title)
