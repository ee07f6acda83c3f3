"""How a page is started: address, folders, who may enter. Plain data that crosses from the command line as JSON."""

import ipaddress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from finetune.errors import RecipeError


class PageSettings(BaseModel):
    """What `atelier ui` was asked for. The password is not among it: it comes by the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=0, le=65535)
    """None takes the first free one from 7860."""
    runs: tuple[Path, ...] = (Path("runs"),)
    pictures: tuple[Path, ...] = ()
    recipes: Path = Path()
    queue: Path = Path("runs/_queue")
    share: bool = False
    user: str | None = None
    open_browser: bool = False
    max_upload_mb: int = Field(default=64, ge=1)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_guarded(settings: PageSettings, password: str | None) -> None:
    """Refuse to be reached from other machines without a user and a password.

    Raises:
        RecipeError: with what to type.
    """
    if settings.user is not None and not password:
        raise RecipeError("--user: the password comes by the environment: ATELIER_PASSWORD=… atelier ui --user NAME")
    opens_up = "--share" if settings.share else "" if is_loopback(settings.host) else f"--host {settings.host}"
    if opens_up and (settings.user is None or not password):
        raise RecipeError(
            f"{opens_up}: others could start programs and read files here. Give a user and a password as well: "
            f"ATELIER_PASSWORD=… atelier ui {opens_up} --user NAME"
        )
    if password and len(password) < 8 and opens_up:
        raise RecipeError(f"{opens_up}: the password has {len(password)} characters, needs 8 or more")
