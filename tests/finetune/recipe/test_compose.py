"""What extends what, what wins, and what an override does."""

from pathlib import Path

import pytest

from finetune.recipe import Recipe, RecipeProblems, load_recipe, parse_recipe
from finetune.recipe.schema import (
    AdamW8bitOptimizer,
    AutoOptimizer,
    FolderSource,
    HubModel,
    HuggingFaceSource,
    LogitNormalTimesteps,
    LohaAdapter,
    LokrAdapter,
    ProdigyOptimizer,
    UniformTimesteps,
)

BASE = """\
schema_version: 1
model: {kind: miniature}
data:
  sources:
    - {kind: folder, path: pictures}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, "utf-8")


def load(text: str, *overrides: str) -> Recipe:
    write("recipe.yaml", text)
    return load_recipe("recipe.yaml", overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeProblems) as caught:
        load(text, *overrides)
    return str(caught.value).split("\n")


class TestExtends:
    def test_the_extending_file_wins_and_mappings_are_merged_deeply(self) -> None:
        write("base.yaml", BASE + "training: {steps: 7, objective: {snr_gamma: 5, noise_offset: 0.1}}\n")
        recipe = load("extends: base.yaml\ntraining: {objective: {snr_gamma: 3}}\n")
        assert recipe.training.steps == 7
        assert recipe.training.objective.snr_gamma == 3
        assert recipe.training.objective.noise_offset == 0.1

    def test_a_later_entry_wins_over_an_earlier_one(self) -> None:
        write("a.yaml", BASE + "seed: 1\npurpose: a\n")
        write("b.yaml", "seed: 2\n")
        recipe = load("extends: [a.yaml, b.yaml]\n")
        assert (recipe.seed, recipe.purpose) == (2, "a")

    def test_paths_are_relative_to_the_extending_file(self) -> None:
        write("deep/er/base.yaml", BASE + "seed: 4\n")
        write("deep/middle.yaml", "extends: er/base.yaml\n")
        assert load("extends: deep/middle.yaml\n").seed == 4

    def test_lists_are_replaced_whole(self) -> None:
        write("base.yaml", BASE + "preview: {prompts: [a, b, c]}\n")
        recipe = load("extends: base.yaml\npreview: {prompts: [d]}\n")
        assert [prompt.prompt for prompt in recipe.preview.prompts] == ["d"]

    def test_a_changed_kind_replaces_its_mapping(self) -> None:
        write("base.yaml", BASE + "training: {optimizer: {kind: adamw, eps: 1e-6, weight_decay: 0.5}}\n")
        recipe = load("extends: base.yaml\ntraining: {optimizer: {kind: prodigy, d_coef: 2}}\n")
        assert recipe.training.optimizer == ProdigyOptimizer(d_coef=2.0)

    def test_the_same_kind_is_merged_whether_it_is_named_or_meant_by_default(self) -> None:
        write("base.yaml", BASE + "training: {optimizer: {weight_decay: 0.5}}\nadapter: {unet: {rank: 3}}\n")
        recipe = load("extends: base.yaml\ntraining: {optimizer: {kind: auto}}\nadapter: {kind: lora}\n")
        assert recipe.training.optimizer == AutoOptimizer(weight_decay=0.5)
        assert recipe.adapter.unet is not None
        assert recipe.adapter.unet.rank == 3

    def test_null_switches_off_what_a_base_switched_on(self) -> None:
        write("base.yaml", BASE + "refiner: {kind: miniature}\n")
        assert load("extends: base.yaml\nrefiner: null\n").refiner is None

    def test_a_problem_in_an_extended_file_names_that_file_and_line(self) -> None:
        write("lib/base.yaml", BASE + "seed: x\npurpose: ok\npurpose: again\n")
        assert problems("extends: lib/base.yaml\n") == [
            "lib/base.yaml:8: the key 'purpose' is given twice (first at lib/base.yaml:7)",
            "lib/base.yaml:6: seed: got 'x', needs a whole number from 0 to 2^63 - 1",
        ]

    def test_an_unreadable_base_is_reported_in_its_own_name(self) -> None:
        write("base.yaml", "seed: [1\n")
        write("other.yaml", "a: &x 1\n")
        assert [line.partition(": ")[0] for line in problems("extends: [base.yaml, other.yaml]\n")] == [
            "base.yaml:1",
            "other.yaml:1",
        ]

    def test_a_circle_is_shown(self) -> None:
        write("a.yaml", "extends: b.yaml\n")
        write("b.yaml", "extends: recipe.yaml\n")
        [line] = problems("extends: a.yaml\n")
        assert line == (
            "b.yaml:1: extends: the files extend each other in a circle: recipe.yaml → a.yaml → b.yaml → recipe.yaml"
        )

    def test_the_same_base_twice_is_no_circle(self) -> None:
        write("base.yaml", BASE)
        write("a.yaml", "extends: base.yaml\nseed: 1\n")
        write("b.yaml", "extends: base.yaml\npurpose: b\n")
        recipe = load("extends: [a.yaml, b.yaml]\n")
        assert (recipe.seed, recipe.purpose) == (1, "b")

    def test_a_bomb_of_files_is_refused(self) -> None:
        write("0.yaml", BASE)
        for level in range(1, 9):
            write(f"{level}.yaml", f"extends: [{level - 1}.yaml, {level - 1}.yaml]\n")
        lines = problems("extends: 8.yaml\n")
        assert any("extends more than 32 files" in line for line in lines)
        assert len(lines) < 40

    def test_a_shipped_name_can_be_extended(self) -> None:
        recipe = load("extends: [style, hardware/24gb]\nschema_version: 1\n")
        assert isinstance(recipe.model, HubModel)
        assert recipe.training.micro_batch_size == 4


class TestOverrides:
    def test_values_are_yaml_1_2(self) -> None:
        recipe = load(
            BASE,
            "adapter.unet.learning_rate=1e-4",
            "training.gradient_checkpointing=false",
            "purpose=no",
            "export.formats=[kohya, peft]",
            "export.title='1.5'",
            "training.max_grad_norm=null",
            "export.author=",
        )
        assert recipe.adapter.unet is not None
        assert recipe.adapter.unet.learning_rate == 1e-4
        assert recipe.training.gradient_checkpointing is False
        assert recipe.purpose == "no"
        assert recipe.export.formats == ("kohya", "peft")
        assert recipe.export.title == "1.5"
        assert recipe.training.max_grad_norm is None
        assert recipe.export.author == ""

    @pytest.mark.parametrize("text", ["a photo: red, # blue", "<zig> & co", "- x", "a = b", "*star", "!bang", "@home"])
    def test_text_needs_no_quotes(self, text: str) -> None:
        assert load(BASE, f"purpose={text}").purpose == text

    def test_entries_of_lists_are_named_by_number(self) -> None:
        recipe = load(
            BASE + "preview: {prompts: [a, {prompt: b, seed: 1}]}\n",
            "preview.prompts.0.seed=3",
            "preview.prompts.1.size=[64, 128]",
            "preview.prompts.2=c",
            "data.sources.0.path=elsewhere",
        )
        first, second, third = recipe.preview.prompts
        assert (first.prompt, first.seed) == ("a", 3)
        assert (second.prompt, second.seed, second.size) == ("b", 1, (64, 128))
        assert third.prompt == "c"
        assert recipe.data.sources == (FolderSource(path="elsewhere"),)

    def test_a_list_nobody_wrote_begins_at_zero(self) -> None:
        assert load(BASE, "preview.prompts.0=a").preview.prompts[0].prompt == "a"
        [line] = problems(BASE, "preview.prompts.1=a")
        assert line.endswith("preview.prompts.1: got '1', needs an entry of the list: 0 to add the first")

    def test_a_changed_kind_drops_the_settings_of_the_old_one(self) -> None:
        text = BASE + "training: {optimizer: {kind: adamw, eps: 1e-6}}\n"
        recipe = load(text, "training.optimizer.kind=prodigy", "training.optimizer.d_coef=0.5")
        assert recipe.training.optimizer == ProdigyOptimizer(d_coef=0.5)
        same = load(text, "training.optimizer.kind=adamw").training.optimizer
        assert same.model_dump()["eps"] == 1e-6
        source = load(BASE, "data.sources.0={kind: huggingface, name: a/b}").data.sources
        assert source == (HuggingFaceSource(name="a/b"),)

    def test_kinds_of_adapters_share_what_they_are_put_on(self) -> None:
        text = BASE + "adapter: {use_dora: true, unet: {rank: 8, learning_rate: 2e-3}, text_encoder: {rank: 4}}\n"
        loha = load(text, "adapter.kind=loha", "adapter.unet.rank=6").adapter
        assert isinstance(loha, LohaAdapter)
        assert loha.unet is not None
        assert (loha.unet.rank, loha.unet.learning_rate) == (6, 2e-3)
        assert loha.text_encoder is not None
        assert loha.text_encoder.rank == 4
        write("base.yaml", text)
        lokr = load("extends: base.yaml\nadapter: {kind: lokr, factor: 4, text_encoder: null}\n").adapter
        assert isinstance(lokr, LokrAdapter)
        assert lokr.unet is not None
        assert (lokr.unet.rank, lokr.text_encoder) == (8, None)
        full = load(text, "adapter.kind=full", "export.formats=[kohya]").adapter
        assert full.kind == "full"
        assert full.text_encoder is None, "whole models take other learning rates, and nothing of an adapter's"

    def test_a_default_kind_can_be_set_below_without_naming_it(self) -> None:
        recipe = load(BASE, "training.objective.timesteps.max=199", "training.optimizer.weight_decay=0")
        assert recipe.training.objective.timesteps == UniformTimesteps(max=199)
        other = load(BASE, "training.objective.timesteps={kind: logit_normal, mean: -0.5}")
        assert other.training.objective.timesteps == LogitNormalTimesteps(mean=-0.5)

    def test_null_sections_come_to_life_by_a_key_below_them(self) -> None:
        recipe = load(BASE + "adapter: {text_encoder: null}\n", "adapter.text_encoder.rank=4")
        assert recipe.adapter.text_encoder is not None
        assert recipe.adapter.text_encoder.rank == 4

    def test_the_last_override_wins_over_every_file(self) -> None:
        assert load(BASE + "seed: 1\n", "seed=2", "seed=3").seed == 3
        assert load_recipe("style", ["training.optimizer.kind=adamw8bit"]).training.optimizer == AdamW8bitOptimizer()

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("training.steps", "override 'training.steps': needs the form key.path=value"),
            ("=3", "override '=3': needs the form key.path=value"),
            ("training..steps=3", "override 'training..steps=3': needs the form key.path=value"),
            (
                "training.steps=x",
                "override 'training.steps=x': training.steps: got 'x', needs a whole number from 1 to",
            ),
            ("training.steps.more=1", "override 'training.steps.more=1': training.steps: got a mapping, needs a whole"),
            ("trainin.steps=1", "override 'trainin.steps=1': trainin: unknown key. Did you mean 'training'?"),
            ("data.sources.x.path=1", "override 'data.sources.x.path=1': data.sources.x: got 'x', needs an entry of"),
            ("data.sources.-1.path=a", "override 'data.sources.-1.path=a': data.sources.-1: got '-1', needs an entry"),
            ("data.sources.9.path=a", "override 'data.sources.9.path=a': data.sources.9: got '9', needs an entry"),
            ("extends=style", "override 'extends=style': extends: stands only in a file"),
            ("export.formats=[kohya", "override 'export.formats=[kohya': not readable as YAML: a '[' without its ']'"),
            ("export.formats=[&a kohya]", "override 'export.formats=[&a kohya]': an anchor ('&a')"),
            (".".join("a" * 25) + "=1", f"override '{'.'.join('a' * 25)}=1': names a key more than 20 deep"),
        ],
    )
    def test_a_wrong_override_is_named(self, override: str, words: str) -> None:
        [line] = problems(BASE, override)
        assert line.startswith(words)


class TestName:
    def test_it_is_the_files_unless_given(self) -> None:
        write("my first, é.yaml", BASE)
        assert load_recipe("my first, é.yaml").name == "my-first"
        assert load(BASE + "name: ''\n").name == "recipe"
        assert load(BASE + "name: given\n").name == "given"
        assert load(BASE, "name=typed").name == "typed"
        assert load_recipe("quickstart").name == "quickstart"

    def test_it_is_the_extending_files(self) -> None:
        assert load("extends: style\nschema_version: 1\n").name == "recipe"


def test_floats_that_are_whole_serve_as_whole_numbers() -> None:
    assert load(BASE, "training.steps=1e3").training.steps == 1000


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert load("\ufeff" + BASE).seed == 0


def test_a_recipe_is_read_from_text_alone() -> None:
    assert parse_recipe(BASE, "from-metadata.yaml", ["seed=3"]) == load(BASE + "name: from-metadata\nseed: 3\n")
    assert parse_recipe("extends: quickstart\n").name == "recipe"
    with pytest.raises(RecipeProblems, match=r"^lora\.safetensors:6: seed: got 'x'"):
        parse_recipe(BASE + "seed: x\n", "lora.safetensors")
