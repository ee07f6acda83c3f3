"""What `atelier ui` asks of the page's process, and what it refuses before one is started."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.cli.main import main, parse_line
from finetune.cli.ui import settings_of
from finetune.errors import RecipeError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder below a home of its own."""
    folder = tmp_path / "home" / "work"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    return folder


def told(*words: str) -> dict[str, Any]:
    return settings_of(parse_line(["ui", *words]))


def test_without_options_it_is_for_this_machine_and_this_folder(here: Path) -> None:
    assert told() == {
        "host": "127.0.0.1", "port": None, "runs": ["runs"], "pictures": [str(here)], "recipes": ".",
        "queue": str(Path("runs/_queue")), "share": False, "user": None, "open_browser": False, "max_upload_mb": 64,
    }  # fmt: skip


def test_folders_may_be_given_several_times_and_the_queue_follows_the_first_of_runs(tmp_path: Path) -> None:
    (tmp_path / "home" / "photos").mkdir()
    found = told("--runs", "~/a", "--runs", "b", "--pictures", "~/photos", "--recipes", "~/r")
    home = tmp_path / "home"
    assert (found["runs"], found["queue"]) == ([str(home / "a"), "b"], str(home / "a" / "_queue"))
    assert (found["pictures"], found["recipes"]) == ([str(home / "photos")], str(home / "r"))
    assert told("--queue", "~/q")["queue"] == str(home / "q")


def test_the_home_folder_and_those_above_it_are_not_opened_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "home", tmp_path, Path(tmp_path.anchor)):
        monkeypatch.chdir(folder)
        assert told()["pictures"] == []
    assert told("--pictures", str(tmp_path / "home"))["pictures"] == [str(tmp_path / "home")], "asked for, they are"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "-1"], "--port: got -1, needs a number from 0 to 65535"),
        (["--port", "65536"], "--port: got 65536"),
        (["--max-upload", "0"], "--max-upload: got 0, needs 1 or more"),
        (["--pictures", "none"], "--pictures: none does not exist"),
        (["--pictures", "file"], "--pictures: file is no folder"),
        (["--runs", "file"], "--runs: file is no folder"),
        (["--recipes", "file"], "--recipes: file is no folder"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str, here: Path) -> None:
    (here / "file").touch()
    with pytest.raises(RecipeError, match=message):
        told(*words)


def test_a_page_whose_packages_are_missing_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "gradio" else object())
    assert main(["ui"]) == 2
    assert "pip install --no-deps -r requirements-page.txt" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows starts a child")
def test_the_page_takes_the_processes_place_with_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    monkeypatch.setenv("ATELIER_PASSWORD", "a secret")

    def become(_program: str, command: list[str]) -> None:
        asked.append(command)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(SystemExit):
        main(["ui", "--port", "0", "--user", "me"])
    ((program, dash, module, plain),) = asked
    assert (program, dash, module) == (sys.executable, "-m", "webui")
    assert json.loads(plain) == told("--port", "0", "--user", "me")
    assert "a secret" not in plain, "the password goes by the environment alone"
