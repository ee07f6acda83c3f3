"""Who may reach the page: this machine alone, unless a user and a password are asked for."""

import pytest
from pydantic import ValidationError

from finetune.errors import RecipeError
from webui.settings import PageSettings, is_loopback, require_guarded


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_alone_needs_no_password(host: str) -> None:
    assert is_loopback(host)
    require_guarded(PageSettings(host=host), None)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.1.2", "8.8.8.8", "example.com", "localhost.example.com", "127.0.0.1.nip.io", ""],
)  # fmt: skip
def test_any_other_address_needs_a_user_and_a_long_password(host: str) -> None:
    assert not is_loopback(host)
    for user, password in ((None, None), (None, "long enough"), ("me", None), ("me", ""), ("me", "short")):
        with pytest.raises(RecipeError):
            require_guarded(PageSettings(host=host, user=user), password)
    require_guarded(PageSettings(host=host, user="me"), "long enough")


def test_a_public_address_needs_them_too_and_is_told_what_to_type() -> None:
    with pytest.raises(RecipeError, match="ATELIER_PASSWORD=… atelier ui --share --user NAME"):
        require_guarded(PageSettings(share=True), None)
    with pytest.raises(RecipeError, match="5 characters, needs 8 or more"):
        require_guarded(PageSettings(share=True, user="me"), "short")
    require_guarded(PageSettings(share=True, user="me"), "long enough")


def test_a_user_without_a_password_is_a_slip_on_this_machine_too() -> None:
    with pytest.raises(RecipeError, match="the password comes by the environment"):
        require_guarded(PageSettings(user="me"), None)
    require_guarded(PageSettings(user="me"), "short")


@pytest.mark.parametrize(
    "wrong", [{"port": -1}, {"port": 65536}, {"max_upload_mb": 0}, {"password": "x"}, {"host": None}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PageSettings(**wrong)  # type: ignore[arg-type]
