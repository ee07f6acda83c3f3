"""The package is light and stands alone: importing it, and scanning a folder, brings in no training library."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "pydantic", "finetune", "webui")


def run(code: str) -> str:
    """Run code in a fresh interpreter that knows both source roots, and return what it prints."""
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'datasets')]!r}\n{code}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that are loaded after the code ran."""
    return set(run(code + "\nprint(*{name.partition('.')[0] for name in sys.modules})").split())


def submodules() -> list[str]:
    """Return the dotted name of every module of the package."""
    names = sorted(path.stem for path in (ROOT / "datasets" / "imagesets").glob("*.py") if path.stem != "__init__")
    assert "scan" in names
    return [f"imagesets.{name}" for name in names]


@pytest.mark.parametrize("heavy", HEAVY)
def test_what_is_heavy_is_there_to_be_imported(heavy: str) -> None:
    """Otherwise the next test would pass for nothing."""
    import importlib.util

    if heavy == "webui" and not (ROOT / "webui" / "__init__.py").exists():
        pytest.skip("there is no webui package")
    assert importlib.util.find_spec(heavy) is not None


def test_importing_every_module_imports_nothing_heavy() -> None:
    loaded = modules_after(f"import {', '.join(submodules())}")
    assert "imagesets" in loaded
    assert not loaded & set(HEAVY)


def test_scanning_and_framing_a_folder_imports_nothing_heavy() -> None:
    loaded = modules_after(
        "from pathlib import Path\n"
        "from imagesets.scan import scan_sources\n"
        "from imagesets.sources import FolderSource\n"
        "from imagesets.framing import make_frame\n"
        f"report = scan_sources([FolderSource(Path({str(ROOT / 'datasets/samples/quickstart')!r}))])\n"
        "assert len(report.samples) == 10 and not report.bad, report\n"
        "sample = report.samples[0]\n"
        "sample.render(make_frame(sample.original_size, (64, 64), 'center'))"
    )
    assert "PIL" in loaded
    assert not loaded & set(HEAVY)


def test_the_library_of_the_same_name_as_our_folder_stays_importable_from_the_root() -> None:
    """Our `datasets/` holds no `__init__.py`, so that `import datasets` is Hugging Face's, as accelerate needs it."""
    found = run("import importlib.util; print(importlib.util.find_spec('datasets').origin)")
    assert found.endswith("__init__.py")
    assert not Path(found).is_relative_to(ROOT / "datasets")


@pytest.mark.parametrize("path", sorted((ROOT / "datasets" / "imagesets").glob("*.py")), ids=lambda path: path.name)
def test_no_module_names_the_trainer(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "import finetune" not in text
    assert "from finetune" not in text
