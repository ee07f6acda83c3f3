"""Recipes are saved whole, inside the folder, and never over what somebody else has changed."""

from pathlib import Path

import pytest

from webui.places import PlaceError, Places
from webui.recipe_form.saving import ChangedElsewhereError, open_recipe, save_recipe, saved_names


@pytest.fixture
def places(tmp_path: Path) -> Places:
    folder = tmp_path / "recipes"
    folder.mkdir()
    return Places.at([tmp_path / "runs"], [], recipes=folder, queue=tmp_path / "q", scratch=tmp_path)


def test_what_is_saved_is_opened_and_listed(places: Places) -> None:
    saved = save_recipe(places, "mine.yaml", "extends: style\nname: ü\n", "")
    assert open_recipe(places, "mine") == saved
    (places.recipes / "other.yaml").write_text("services: {}\n", "utf-8")
    (places.recipes / "link.yaml").symlink_to(places.recipes / "mine.yaml")
    (places.recipes / "binary.yaml").write_bytes(b"extends: \xff\n")
    assert saved_names(places) == ["mine"]
    again = save_recipe(places, "mine", "extends: object\n", saved.mark)
    assert open_recipe(places, "mine").text == "extends: object\n"
    assert save_recipe(places, "mine", "extends: object\n", "").mark == again.mark


def test_what_was_changed_elsewhere_is_not_replaced_unasked(places: Places) -> None:
    saved = save_recipe(places, "mine", "extends: style\n", "")
    (places.recipes / "mine.yaml").write_text("extends: object\n", "utf-8")
    with pytest.raises(ChangedElsewhereError, match="changed elsewhere"):
        save_recipe(places, "mine", "extends: character\n", saved.mark)
    with pytest.raises(ChangedElsewhereError, match="is there already"):
        save_recipe(places, "mine", "extends: character\n", "")
    assert (places.recipes / "mine.yaml").read_text("utf-8") == "extends: object\n"
    save_recipe(places, "mine", "extends: character\n", saved.mark, replace=True)
    assert open_recipe(places, "mine").text == "extends: character\n"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x\0", "-x", "a" * 200])
def test_names_that_lead_elsewhere_are_refused(places: Places, name: str) -> None:
    with pytest.raises(PlaceError):
        save_recipe(places, name, "", "")
    with pytest.raises(PlaceError):
        open_recipe(places, name)
