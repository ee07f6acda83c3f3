"""Starts the page and keeps it up until Ctrl-C. Everything Gradio would take from the environment is said here."""

import socket
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from finetune.errors import RecipeError
from webui.app import PAGES, build_app
from webui.desk import Desk
from webui.guard import Guard, Names
from webui.places import Places
from webui.settings import PageSettings, is_loopback, require_guarded
from webui.theme import page_css, page_head, page_theme

_BODY_BYTES = 1 << 20
_LOOK_SECONDS = 0.03


def launch(settings: PageSettings, password: str | None, scratch: Path, *, block: bool = True) -> gr.Blocks:
    """Serve the page.

    Args:
        settings: address, folders, who may enter.
        password: of `settings.user`.
        scratch: an empty folder for the page's own files.
        block: return only when the page ends.

    Raises:
        RecipeError: it would be open to others without a password, or its address is taken.
    """
    require_guarded(settings, password)
    places = Places.at(
        settings.runs, settings.pictures, recipes=settings.recipes, queue=settings.queue, scratch=scratch
    )
    gr.set_static_paths([*places.served()])
    app = build_app(Desk.at(places))
    auth = None if settings.user is None or password is None else (settings.user, password)
    guard = Middleware(
        Guard,
        places=places,
        names=names_of(settings),
        pages=[path for _, path, _ in PAGES],
        max_body_bytes=settings.max_upload_mb * 1_000_000 + _BODY_BYTES,
    )
    try:
        _serve(app, settings, auth, guard)
    except OSError as error:
        port = "every port from 7860" if settings.port is None else f"port {settings.port}"
        raise RecipeError(
            f"{settings.host}: {port} is taken, or may not be opened. Give another: --port 0 takes a free one"
        ) from error
    print(f"Atelier: {app.local_url}", flush=True)
    if app.share_url:
        print(f"for others, with the password: {app.share_url}", flush=True)
    if block:
        app.block_thread()
    return app


def names_of(settings: PageSettings) -> Names:
    """Return the names the page may be asked for by."""
    known = frozenset({"127.0.0.1", "localhost", "::1", settings.host.lower()})
    if is_loopback(settings.host):
        return Names(known, shared=settings.share)
    return Names(
        known | {socket.gethostname().lower(), socket.getfqdn().lower()}, addresses=True, shared=settings.share
    )


def _serve(app: gr.Blocks, settings: PageSettings, auth: tuple[str, str] | None, guard: Middleware) -> None:
    """Begin to serve; whatever Gradio would read from the environment is said here."""
    # Gradio looks for a waiting event a thousand times a second, which takes 4 % of a core from what trains.
    app._queue.sleep_when_free = _LOOK_SECONDS
    app._queue.progress_update_sleep_when_free = _LOOK_SECONDS * 10
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
        head=page_head(),
    )
