"""The page refuses a list of attacks over HTTP, and the requests of its own browser go through."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webui.attacks import Attack, Target, all_attacks, lay_folder, multipart, request
from tests.webui.serving import serve_page

pytest.importorskip("gradio", reason="the page's packages are not installed: requirements-page.txt")

ATTACKS = list(all_attacks())
MAX_UPLOAD_MB = 1


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("page")
    lay_folder(folder)
    with serve_page(folder, "--pictures", "pictures", "--max-upload", str(MAX_UPLOAD_MB)) as port:
        yield Target(port, folder, MAX_UPLOAD_MB * 1_000_000)


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_the_attack_is_refused(attack: Attack, target: Target) -> None:
    answer = attack.send(target)
    assert not attack.worked(answer), f"{answer.status} {answer.body[:200]}"
    assert not answer.told_the_secret


def test_they_are_many_and_differ() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 40


@pytest.mark.parametrize("path", ["/", "/monitor", "/config", "/theme.css", "/gradio_api/login_check"])
def test_what_the_page_needs_is_sent(path: str, target: Target) -> None:
    answer = request(target, "GET", path, {"Sec-Fetch-Site": "same-origin"})
    assert answer.status == 200, answer.body[:200]


def test_localhost_is_a_name_of_the_page_and_links_from_elsewhere_open_it(target: Target) -> None:
    assert request(target, "GET", "/config", hosts=(f"localhost:{target.port}",)).status == 200
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert request(target, "GET", "/", followed).status == 200


def test_a_file_of_a_run_is_sent_so_that_no_browser_runs_it(target: Target) -> None:
    run = target.folder / "runs" / "victim"
    (run / "previews/step-000001/wall.png").write_bytes(b"\x89PNG")
    (run / "metadata.json").write_text("<script>alert(1)</script>")
    picture = request(target, "GET", f"/gradio_api/file={run}/previews/step-000001/wall.png")
    saved = request(target, "GET", f"/gradio_api/file={run}/metadata.json")
    assert picture.status == saved.status == 200
    for answer in (picture, saved):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
    assert saved.headers["content-disposition"].startswith("attachment")


def test_an_upload_of_the_page_itself_is_taken_and_stays_in_its_own_folder(target: Target) -> None:
    form, body = multipart("../../../escaped.png", b"x" * 1000)
    answer = request(target, "POST", "/gradio_api/upload", {**form, "Origin": target.origin}, body)
    assert answer.status == 200
    assert "atelier-ui-" in answer.body
    assert not list(target.folder.parent.rglob("escaped.png"))


def test_beyond_this_machine_it_asks_for_a_password(tmp_path: Path) -> None:
    for words in (["--share"], ["--host", "0.0.0.0"], ["--host", "::"], ["--host", "0.0.0.0", "--user", "a"]):
        finished = subprocess.run(
            [sys.executable, "-m", "finetune", "ui", *words], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert finished.returncode == 2, finished.stderr
        assert "ATELIER_PASSWORD" in finished.stderr


def test_with_a_password_nothing_is_told_before_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with serve_page(tmp_path, "--user", "ann", ATELIER_PASSWORD="long enough") as port:
        target = Target(port, tmp_path, 1)
        assert request(target, "GET", "/config").status == 401
        join = {"Origin": target.origin, "Content-Type": "application/json"}
        assert request(target, "POST", "/gradio_api/queue/join", join, b"{}").status == 401
        form = {"Origin": target.origin, "Content-Type": "application/x-www-form-urlencoded"}
        assert request(target, "POST", "/login", form, b"username=ann&password=wrong").status == 400
        entered = request(target, "POST", "/login", form, b"username=ann&password=long enough")
        assert entered.status == 200
        cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
        assert request(target, "GET", "/config", cookie).status == 200
