"""The page's own folder: gone when it ends, and what killed pages have left is cleared away."""

import os
import tempfile
import time
from pathlib import Path

import pytest

from finetune.run.locks import held
from webui.scratch import clear_away, scratch_folder


def lay(folder: Path, name: str, age_seconds: float) -> Path:
    left = folder / name
    left.mkdir()
    (left / "picture.png").write_text("x")
    os.utime(left, (time.time() - age_seconds,) * 2)
    return left


def test_it_is_empty_and_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
        (folder / "kept.png").write_text("x")
        clear_away(tmp_path)
        assert (folder / "kept.png").is_file()
    assert not list(tmp_path.iterdir())


def test_only_what_no_page_holds_is_cleared_away(tmp_path: Path) -> None:
    old, young = lay(tmp_path, "atelier-ui-old", 1000), lay(tmp_path, "atelier-ui-young", 1)
    other, in_use = lay(tmp_path, "somebody-elses", 1000), lay(tmp_path, "atelier-ui-used", 1000)
    target = lay(tmp_path, "target", 1000)
    (tmp_path / "atelier-ui-link").symlink_to(target)
    with held(in_use / ".lock", 1.0, "taken"):
        os.utime(in_use, (time.time() - 1000,) * 2)
        clear_away(tmp_path)
        assert not old.exists()
        assert all(each.is_dir() for each in (young, other, in_use, target))
