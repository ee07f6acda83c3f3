"""One distribution, whole in a wheel: recipes, samples, the miniature; and every package is listed."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed() -> None:
    listed = set(project()["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(root).parts)
        for root, top in ((ROOT, "finetune"), (ROOT, "webui"), (ROOT / "datasets", "imagesets"))
        for path in (root / top).rglob("__init__.py")
    }
    assert found == {name for name in listed if not name.startswith("finetune.shipped")}


def test_constraints_pin_everything_that_is_asked_for() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    }
    wanted = project()["project"]["dependencies"]
    wanted += [
        name for extra in ("dev", "tensorboard") for name in project()["project"]["optional-dependencies"][extra]
    ]
    names = {requirement.split(">")[0].split(";")[0].strip().lower().replace("_", "-") for requirement in wanted}
    assert names <= pinned
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "torchvision" not in pinned


@pytest.mark.slow
def test_a_wheel_holds_all_and_trains_away_from_the_checkout(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(wheels), str(ROOT)], check=True, capture_output=True, text=True)
    [wheel] = wheels.glob("atelier-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("recipes", "finetune/shipped/recipes"), ("datasets/samples", "finetune/shipped/samples")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in {".yaml", ".png", ".txt"}:
                assert f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" in names
    assert not [name for name in names if name.startswith(("datasets/", "tests/", "recipes/", "samples/"))]

    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import finetune, datasets; assert 'site' in finetune.__file__, finetune.__file__;"
        "assert hasattr(datasets, 'load_dataset');"
        "from finetune.cli.main import main; import sys;"
        "sys.exit(main(['train', 'quickstart', 'training.steps=1', 'preview.prompts=[]']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "runs/quickstart/exports/quickstart.safetensors").is_file()
