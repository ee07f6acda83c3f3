"""The arrows between the parts point one way, light parts stay light, and `datasets` is Hugging Face's."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "finetune.errors": 0,
    "imagesets": 0,
    "finetune.naming": 1,
    "finetune.recipe": 1,
    "finetune.run": 1,
    "finetune.queue": 2,
    "finetune.model": 2,
    "finetune.readers": 2,
    "finetune.tensors": 2,
    "finetune.adapters": 2,
    "finetune.cache": 3,
    "finetune.dialects": 3,
    "finetune.export": 3,
    "finetune.loras": 4,
    "finetune.preview": 4,
    "finetune.training": 5,
    "finetune.drawing": 6,
    "finetune.miniature": 6,
    "finetune.cli": 7,
    "webui": 8,
}
"""Where each part stands; a part imports only from its own floor and from floors below it."""

HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "datasets")


def part_of(module: str) -> str | None:
    return next((part for part in FLOORS if module == part or module.startswith(part + ".")), None)


def sources() -> Iterator[tuple[str, Path]]:
    for folder, root in (("finetune", ROOT), ("imagesets", ROOT / "datasets"), ("webui", ROOT)):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module or ""


def test_arrows_point_down() -> None:
    wrong, seen = [], 0
    for module, path in sources():
        part = part_of(module)
        for imported in imports(path):
            below = part_of(imported)
            if part is None or below is None or part == below:
                continue
            seen += 1
            if FLOORS[below] > FLOORS[part] or (FLOORS[below] == FLOORS[part] and FLOORS[part] < 2):
                wrong.append(f"{module} imports {imported}")
    assert not wrong
    assert seen > 50, "the walk found too little to prove anything"


def test_pictures_know_nothing_of_the_trainer_and_nothing_knows_the_page() -> None:
    for module, path in sources():
        for imported in imports(path):
            assert not (
                module.startswith("imagesets") and imported.startswith(("finetune", "webui", "diffusers", "torch"))
            )
            assert not (module.startswith("finetune") and imported.startswith("webui"))


@pytest.mark.parametrize(
    "statement",
    [
        "from finetune.cli.main import build_parser; build_parser().format_help()",
        "from finetune.cli.main import main; assert main(['check', 'no-such-recipe']) == 2",
        "from finetune.cli.main import main; assert main(['check', 'quickstart']) == 0",
        "from finetune.cli.main import main; assert main(['data', 'inspect', 'quickstart']) == 0",
        "from finetune.cli.main import main; assert main(['lora', 'verify', 'no-such-file.safetensors']) == 1",
        "from finetune.cli.main import main; assert main(['queue', 'list', '--queue', 'no-such-queue']) == 0",
        "import finetune.recipe, finetune.run.commands, imagesets.scan, webui.runs",
        "import finetune.naming.structure, finetune.naming.keys, finetune.tensors.header, finetune.readers.proof",
        "import finetune.dialects.keys",
        "import finetune.drawing.messages, webui.exporting, webui.playground.form, webui.playground.jobs",
    ],
)
def test_light_parts_start_without_the_heavy_libraries(statement: str) -> None:
    code = f"import sys; {statement}; heavy = {HEAVY} & sys.modules.keys(); assert not heavy, heavy"
    code = code.replace(str(HEAVY), f"set({HEAVY})")
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert finished.returncode == 0, finished.stderr


def test_the_page_starts_without_the_heavy_libraries() -> None:
    """All of its pages, built: what needs torch is done by processes that it starts."""
    pytest.importorskip("gradio", reason="the page's packages are not installed: requirements-page.txt")
    build = (
        "import pathlib; from webui import launch, app, desk, places; here = pathlib.Path('no-such-folder'); "
        "app.build_app(desk.Desk.at(places.Places.at([here], [], recipes=here, queue=here, scratch=here)))"
    )
    test_light_parts_start_without_the_heavy_libraries(build)


def test_datasets_is_hugging_faces_when_started_from_the_root() -> None:
    code = "import datasets; print(hasattr(datasets, 'load_dataset'))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert finished.stdout.strip() == "True"
    assert not (ROOT / "datasets" / "__init__.py").exists()


def test_no_module_reads_or_writes_pickles() -> None:
    for module, path in sources():
        assert not {"pickle", "dill", "cloudpickle"} & set(imports(path)), module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_torchs = (
                isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch"
            )
            assert not (is_torchs and node.attr in {"load", "save"}), f"{module} calls torch.{node.attr}"
