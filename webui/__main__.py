"""The page's process: python -m webui SETTINGS, as `atelier ui` starts it. SETTINGS is `PageSettings` as JSON."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune.errors import AtelierError
from webui.quick_import import without_stubs
from webui.scratch import scratch_folder
from webui.settings import PageSettings, require_guarded

PASSWORD = "ATELIER_PASSWORD"  # noqa: S105 - the name of the variable


def main(arguments: Sequence[str]) -> int:
    """Serve the page until it is interrupted."""
    settings = PageSettings.model_validate_json(arguments[0])
    # Taken out of the environment: what the page starts need not know it.
    password = os.environ.pop(PASSWORD, None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        require_guarded(settings, password)
        with scratch_folder() as scratch:
            quiet_environment(scratch)
            with without_stubs():  # only now: Gradio reads the environment as it is imported
                from webui.launch import launch

            launch(settings, password, scratch)
    except AtelierError as error:
        print(f"atelier: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def quiet_environment(scratch: Path) -> None:
    """Take from the environment what would widen or slow the page, before Gradio is imported."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_DEFAULT_CONCURRENCY_LIMIT"] = "8"  # of browsers that ask the same at once
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"  # that it remembers for a page of its own, which is not served
    os.environ["GRADIO_TEMP_DIR"] = str(scratch)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
