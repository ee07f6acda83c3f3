"""`atelier tell` leaves an order for the run that trains now, and none that nobody would hear."""

import json
from pathlib import Path

import pytest

from finetune.cli.main import main
from finetune.run.commands import COMMAND_KINDS, poll_commands
from finetune.run.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path / "cat")
    run.recipe.write_text("schema_version: 1\n", encoding="utf-8")
    return run


def test_each_order_arrives_once_and_in_its_turn(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with run.lock():
        for order in COMMAND_KINDS:
            assert main(["tell", str(run.path), order]) == 0
        assert main(["tell", str(run.path), "save", "--json"]) == 0
    told = [command.kind for command in poll_commands(run)]
    assert told == [*COMMAND_KINDS, "save"]
    out = capsys.readouterr().out
    assert out.startswith("0001-save: it saves after the step it is at\n")
    assert json.loads(out[out.index("{") :]) == {"id": "0004-save"}


def test_a_run_that_does_not_train_is_told_nothing(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tell", str(run.path), "stop"]) == 2
    assert f"atelier train {run.path} --resume" in capsys.readouterr().err
    assert poll_commands(run) == []


def test_what_is_no_run_or_no_order_is_refused(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tell", str(tmp_path / "dog"), "save"]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["tell", str(run.path), "explode"])
    assert ended.value.code == 2
    assert "'explode'" in capsys.readouterr().err
    assert poll_commands(run) == []
