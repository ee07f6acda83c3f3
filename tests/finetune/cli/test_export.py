"""Which step `atelier export` takes, before anything heavy is loaded."""

from pathlib import Path

import pytest

from finetune.cli.export import find_best
from finetune.cli.main import main
from finetune.errors import RecipeError
from finetune.run.events import EventLog
from finetune.run.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path / "cat")
    with EventLog(run.events) as log:
        for step in range(1, 31):
            log.emit("step", step=step, loss=abs(step - 12) + 1.0)
    for step in (10, 20, 30):
        run.checkpoint(step).mkdir()
        (run.checkpoint(step) / "manifest.json").write_text("{}", encoding="utf-8")
    return run


def test_the_best_is_one_of_those_that_are_kept(run: RunFolder) -> None:
    """The smoothed loss falls to its lowest at about 20, a little after the loss itself."""
    assert find_best(run).step == 20
    (run.checkpoint(20) / "manifest.json").unlink()
    assert find_best(run).step in (10, 30)


def test_best_is_refused_where_no_log_tells_and_beside_a_step(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run.path), "--best", "--step", "20"])
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
    run.events.write_text("", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"--best: .* \(30, 20, 10\)\. Name one with --step"):
        find_best(run)
