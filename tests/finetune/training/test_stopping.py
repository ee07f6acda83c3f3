"""A stop leaves a checkpoint of the step it stops at, whenever in the step it was asked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from accelerate import Accelerator

from finetune.recipe import load_recipe
from finetune.run.events import EventLog
from finetune.run.folder import RunFolder
from finetune.training import recorder as recording
from finetune.training.recorder import Recorder
from finetune.training.signals import StopRequest


@pytest.mark.parametrize("asked", ["before saving", "while previews are drawn"])
def test_a_stop_is_saved_once(asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(recording, "save_checkpoint", lambda folder, step, *rest: saved.append(step))
    recipe, run, stop = load_recipe("quickstart"), RunFolder.create(tmp_path / "run"), StopRequest()
    anything = SimpleNamespace(state_dict=dict, facts=dict, place=dict)
    state = cast("Any", SimpleNamespace(
        global_step=7, total_steps=100, accelerator=Accelerator(cpu=True), scaler=anything, task=anything,
        pictures=anything, optimizer_kind="adamw", skipped_in_a_row=0, groups={}, ema=None, parameters={}, initial={},
        optimizer=None,
    ))  # fmt: skip
    with EventLog(run.events) as log:
        recorder = Recorder(run, log, recipe.preview, recipe.checkpoint, stop, {})
        assert not recorder.should_stop(state)
        assert saved == []
        stop.by_command = asked == "before saving"
        recorder.save_if_due(state)
        stop.by_command = True
        assert recorder.should_stop(state)
    assert saved == [7]
