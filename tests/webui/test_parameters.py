"""Whatever a browser sends to a handler, nothing outside the page's folders is read, told or changed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webui.asking import call, page_config
from tests.webui.attacks import SECRET, Target, lay_folder
from tests.webui.serving import serve_page

pytest.importorskip("gradio", reason="the page's packages are not installed: requirements-page.txt")

TEXTS = ("textbox", "dropdown", "code", "radio", "state", "browserstate")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("page")
    lay_folder(folder)
    (folder / "secret.yaml").write_text(f"purpose: {SECRET}\nschema_version: 1\n")
    with serve_page(folder, "--pictures", "pictures", "--recipes", "recipes") as port:
        yield Target(port, folder, 64_000_000)


def hostile_words(folder: Path) -> list[str]:
    return [
        "../secret.txt",
        "../../secret.yaml",
        str(folder / "secret.txt"),
        str(folder / "secrets"),
        "victim/../../secrets",
        "victim/linked",
        "@9/victim",
        "@0/../../secrets",
        "victim\0",
        "..",
        "/",
        "~",
        "\\\\server\\share",
        "file:///etc/passwd",
        "$(touch owned)",
        "--help",
        "-rf",
        "'; DROP",
        "x" * 5000,
    ]


def digest(folder: Path) -> dict[str, str]:
    """Return what lies outside the folders that the page may write to."""
    own = {"runs", "pictures", "recipes", "page.log"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in own
    }


@pytest.mark.parametrize("page", ["", "monitor", "dataset", "recipe", "playground", "export"])
def test_no_parameter_leads_out_of_the_folders(page: str, target: Target) -> None:
    config, before = page_config(target, page), digest(target.folder)
    kinds = {component["id"]: component["type"] for component in config["components"]}
    values = {component["id"]: component["props"].get("value") for component in config["components"]}
    words, calls = hostile_words(target.folder), 0
    for dependency in config["dependencies"]:
        if not dependency.get("backend_fn") or not any(kinds[each] in TEXTS for each in dependency["inputs"]):
            continue
        for word in words[calls % 5 :: 5]:
            calls += 1
            data = [word if kinds[each] in TEXTS[:-2] else values[each] for each in dependency["inputs"]]
            answer = call(target, dependency["id"], data, f"session{page}{calls}")
            assert SECRET not in answer, (dependency["id"], word)
            assert "Traceback" not in answer
    assert calls
    assert digest(target.folder) == before
