"""Starts the page and keeps it up until Ctrl-C. Everything Gradio would take from the environment is said here."""

import os
import tempfile
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from webui.app import PAGES, build_app
from webui.desk import Desk
from webui.guard import Guard
from webui.places import Places
from webui.settings import PageSettings, require_guarded
from webui.theme import page_css, page_theme

_FIRST_PORT = 7860
_BODY_BYTES = 1 << 20


def launch(settings: PageSettings, password: str | None, *, block: bool = True) -> gr.Blocks:
    """Serve the page.

    Args:
        settings: address, folders, who may enter.
        password: of `settings.user`.
        block: return only when the page ends.

    Raises:
        RecipeError: it would be open to others without a password.
        OSError: the port is taken.
    """
    require_guarded(settings, password)
    scratch = Path(tempfile.mkdtemp(prefix="atelier-ui-"))
    places = Places.at(
        settings.runs, settings.pictures, recipes=settings.recipes, queue=settings.queue, scratch=scratch
    )
    gr.set_static_paths([*places.served()])
    app = build_app(Desk.at(places))
    auth = None if settings.user is None or password is None else (settings.user, password)
    hosts = ["127.0.0.1", "localhost", "::1", settings.host.lower()]
    guard = Middleware(
        Guard,
        places=places,
        hosts=hosts,
        pages=[path for _, path, _ in PAGES],
        max_body_bytes=settings.max_upload_mb * 1_000_000 + _BODY_BYTES,
    )
    app.launch(
        server_name=settings.host,
        server_port=settings.port,
        share=settings.share,
        auth=auth,
        inbrowser=settings.open_browser,
        max_file_size=settings.max_upload_mb * 1_000_000,
        allowed_paths=[],
        blocked_paths=[],
        root_path="",
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        strict_cors=True,
        show_error=True,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
        theme=page_theme(),
        css=page_css(),
    )
    print(f"Atelier: {app.local_url}", flush=True)
    if app.share_url:
        print(f"for others, with the password: {app.share_url}", flush=True)
    if block:
        app.block_thread()
    return app


def quiet_environment(scratch: Path) -> None:
    """Take from the environment what would widen or slow the page, before Gradio is asked for anything."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(scratch)
