"""No name that a browser sends leads out of the folders named at the page's start, and each refusal says why."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.errors import RecipeError
from webui.places import PlaceError, Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Two folders of runs and two of pictures, each with links out of it and a sibling whose name begins alike."""
    for name in ("runs/cat", "runs/deep/er/dog", "more/cat", "secret", "runs-secret", "runs/empty"):
        (tmp_path / name).mkdir(parents=True)
        if name != "runs/empty":
            (tmp_path / name / "recipe.yaml").write_text("name: x\n", encoding="utf-8")
    for name in ("pictures/cats/long hair", "photos", "secret/pictures", "recipes"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "runs" / "in").symlink_to(tmp_path / "runs" / "cat")
    (tmp_path / "runs" / "round").symlink_to(tmp_path / "runs" / "round")
    (tmp_path / "pictures" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "pictures" / "file.png").write_bytes(b"x")
    (tmp_path / "recipes" / "link.yaml").symlink_to(tmp_path / "secret" / "recipe.yaml")
    (tmp_path / "recipes" / "folder.yaml").mkdir()
    (tmp_path / "link-to-runs").symlink_to(tmp_path / "runs")
    return Places.at(
        [tmp_path / "link-to-runs", tmp_path / "more"],
        [tmp_path / "pictures", tmp_path / "photos"],
        recipes=tmp_path / "recipes",
        queue=tmp_path / "runs" / "_queue",
        scratch=tmp_path / "scratch",
    )


@pytest.mark.parametrize("key", ["cat", "deep/er/dog", "@1/cat"])
def test_a_runs_key_leads_to_it_and_back(places: Places, key: str, tmp_path: Path) -> None:
    run = places.run(key)
    assert run.path == {"cat": tmp_path / "runs/cat", "@1/cat": tmp_path / "more/cat"}.get(
        key, tmp_path / "runs/deep/er/dog"
    )
    assert places.key_of(run.path) == key


def test_a_run_may_be_called_as_a_key_of_another_folder_begins(places: Places, tmp_path: Path) -> None:
    for name in ("@1", "@2/dog"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text("name: x\n", encoding="utf-8")
        assert places.key_of(run) == f"@0/{name}"
        assert places.run(f"@0/{name}").path == run


def test_a_link_inside_leads_to_the_run_it_means(places: Places) -> None:
    assert places.key_of(places.run("in").path) == "cat"


@pytest.mark.parametrize(
    "key",
    ["", ".", "empty", "deep", "none", "out", "round", "../secret", "../runs/cat", "cat/../cat", "/", "cat\0",
     "a" * 9999, "../runs-secret", "@2/cat", "@1", "@1/../runs/cat", "@0001/cat", "@-1/cat", "@x/cat", "~", "C:\\cat"],
)  # fmt: skip
def test_no_other_key_is_a_run(places: Places, key: str) -> None:
    with pytest.raises(PlaceError, match=r"there is no such run\. Choose one of the list") as told:
        places.run(key)
    assert len(str(told.value)) < 300


def test_an_absolute_key_is_a_run_only_inside(places: Places, tmp_path: Path) -> None:
    assert places.run(str(tmp_path / "runs" / "cat")).path == tmp_path / "runs" / "cat"
    with pytest.raises(PlaceError):
        places.run(str(tmp_path / "secret"))
    with pytest.raises(PlaceError, match="below none"):
        places.key_of(tmp_path / "runs-secret")


def test_a_folder_of_pictures_lies_below_one_that_was_named_or_ships(places: Places, tmp_path: Path) -> None:
    assert places.picture_folder("cats") == tmp_path / "pictures" / "cats"
    assert places.picture_folder(" cats/long hair ") == tmp_path / "pictures" / "cats" / "long hair"
    assert places.picture_folder(str(tmp_path / "photos")) == tmp_path / "photos"
    assert places.picture_folder("sample:quickstart").is_dir()
    for name in (
        "out",
        "out/pictures",
        "../secret",
        str(tmp_path / "secret"),
        "file.png",
        "none",
        "\0",
        "cats/../cats",
    ):
        with pytest.raises(PlaceError, match=r"atelier ui --pictures FOLDER") as told:
            places.picture_folder(name)
        assert str(tmp_path / "photos") in str(told.value), "what is allowed is told"
    for name in ("sample:none", "sample:../..", "sample:/etc", "sample:"):
        with pytest.raises(RecipeError):
            places.picture_folder(name)


def test_a_recipe_is_a_plain_name(places: Places, tmp_path: Path) -> None:
    for name in ("my-cat", " my-cat.yaml "):
        assert places.recipe_file(name) == tmp_path / "recipes" / "my-cat.yaml"
    for name in ("", ".", "..", ".hidden", "a/b", "../a", "/etc/x", "a\\b", "a\0", "a b", "ä", "a" * 101, "-x", "a:b"):
        with pytest.raises(PlaceError, match="a recipe's name has letters"):
            places.recipe_file(name)
    for name in ("link", "folder"):
        with pytest.raises(PlaceError, match=f"{name}.yaml: is a link or no plain file"):
            places.recipe_file(name)


def test_what_is_sent_lies_inside_and_pictures_folders_give_pictures_to_look_at_alone(
    places: Places, tmp_path: Path
) -> None:
    inside, picture = tmp_path / "runs" / "cat" / "recipe.yaml", tmp_path / "pictures" / "file.png"
    assert places.is_served(inside, shown=False)
    assert places.is_served(picture, shown=True)
    assert not places.is_served(picture, shown=False)
    for path in ("runs/out/recipe.yaml", "secret/recipe.yaml", "runs-secret/recipe.yaml", "runs/cat", "runs/none",
                 "runs/round", "runs/../secret/recipe.yaml", "recipes/link.yaml",
                 "runs/cat/recipe.yaml\0"):  # fmt: skip
        assert not places.is_served(tmp_path / path, shown=False), path
        assert not places.is_served(tmp_path / path, shown=True), path


PARTS = ["..", ".", "/", "//", "cat", "out", "in", "deep", "secret", "runs", "@1/", "@", "\\", "\0", "~", " ", "%2e%2e"]
NAMES = st.lists(st.sampled_from(PARTS) | st.text(max_size=2), max_size=8).map("".join) | st.lists(
    st.sampled_from(PARTS), max_size=6
).map("/".join)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
def test_whatever_is_named_never_lies_outside(places: Places, tmp_path: Path, name: str) -> None:
    """Absolute names too, by putting the folder above all of them before."""
    for given_name in (name, f"{tmp_path}/{name}"):
        for found, allowed in (
            (lambda key: places.run(key).path, places.runs),
            (places.picture_folder, places.pictures),
            (lambda key: places.recipe_file(key).parent, (places.recipes,)),
        ):
            try:
                path = found(given_name)
            except RecipeError:
                continue
            assert any(path.resolve(strict=True).is_relative_to(root) for root in allowed), given_name
            assert "secret" not in path.resolve().relative_to(tmp_path).parts[0]
