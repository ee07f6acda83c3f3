"""A setting without effect is named; a recipe without one gets no warning."""

from pathlib import Path

import pytest

from finetune.recipe import load_recipe, recipe_warnings

REAL = """\
schema_version: 1
model: {kind: hub, id: a/b}
data: {sources: [{kind: folder, path: pictures}]}
"""

CASES = [
    ("", None),
    ("preview: {refiner: {switch_at: 0.7}}", "preview.refiner: has no effect without a refiner"),
    ("refiner: {kind: hub, id: a/c}", "refiner: has no effect without previews"),
    ("refiner: {kind: hub, id: a/c}\npreview: {prompts: [a], refiner: {switch_at: 0.7}}", None),
    ("preview: {every_steps: 10}", "preview.every_steps: has no effect without preview.prompts"),
    (
        "preview: {guidance_scale: 1, prompts: [{prompt: a, negative_prompt: b}]}",
        "preview.prompts.0.negative_prompt: has no effect with preview.guidance_scale 1",
    ),
    (
        "training: {steps: 10}\nadapter: {text_encoder: {stop_after_steps: 10}}",
        "adapter.text_encoder.stop_after_steps: 10 has no effect with training.steps 10",
    ),
    ("training: {steps: 10}\nadapter: {unet: {stop_after_steps: 9}}", None),
    (
        "training: {objective: {zero_terminal_snr: true, prediction_type: epsilon}}",
        "training.objective.zero_terminal_snr: with prediction_type epsilon",
    ),
    ("training: {objective: {zero_terminal_snr: true, prediction_type: v_prediction}}", None),
    (
        "training: {steps: 100, lr_schedule: {kind: cosine, warmup_steps: 100}}",
        "training.lr_schedule.warmup_steps: 100 is all of training.steps 100",
    ),
    (
        "training: {steps: 100}\ncheckpoint: {every_steps: 200}",
        "checkpoint.every_steps: 200 is more than training.steps 100",
    ),
    ("training: {steps: 100}", None),
    ("training: {optimizer: {kind: prodigy}}", "adapter.unet.learning_rate: 0.0001 is a factor with kind: prodigy"),
    ("training: {optimizer: {kind: prodigy}}\nadapter: {unet: {learning_rate: 1.0}}", None),
    ("adapter: {kind: full}", None),
    ("adapter: {kind: full}\nexport: {formats: [peft]}", "export.formats: has no effect with adapter.kind: full"),
    ("adapter: {kind: full}\nexport: {precision: bf16}", None),
    (
        "training: {steps: 10}\nadapter: {kind: full, text_encoder: {stop_after_steps: 12}}",
        "adapter.text_encoder.stop_after_steps: 12 has no effect with training.steps 10",
    ),
    ("adapter: {kind: vae}\npreview: {every_steps: 10}", None),
    ("adapter: {kind: vae}\npreview: {prompts: [a]}", "preview.prompts: has no effect with adapter.kind: vae"),
    ("adapter: {kind: vae}\nrefiner: {kind: hub, id: a/c}", "refiner: has no effect with adapter.kind: vae"),
    ("adapter: {kind: vae}\ntraining: {caption_dropout: 0.5}", "training.caption_dropout: has no effect"),
    ("adapter: {kind: vae}\ntraining: {max_caption_tokens: 75}", "training.max_caption_tokens: has no effect"),
    ("adapter: {kind: vae}\ntraining: {weighted_captions: true}", "training.weighted_captions: has no effect"),
    ("adapter: {kind: vae}\ntraining: {objective: {snr_gamma: 5}}", "training.objective: has no effect"),
    ("adapter: {kind: vae}\ntraining: {precision: fp16}", "training.precision: fp16 overflows in SDXL's VAE"),
    (
        "adapter: {kind: vae}\ntraining: {optimizer: {kind: prodigy}}",
        "adapter.learning_rate: 0.0001 is a factor with kind: prodigy",
    ),
    ("adapter: {use_dora: true}", "export.formats: kohya's form of DoRA is read exactly by LyCORIS alone"),
    ("adapter: {use_dora: true}\nexport: {formats: [kohya, diffusers]}", None),
]


def warnings_of(text: str, tmp_path: Path, *overrides: str) -> list[str]:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, "utf-8")
    return recipe_warnings(load_recipe(str(path), overrides))


@pytest.mark.parametrize(("added", "expected"), CASES)
def test_a_setting_without_effect_is_named(added: str, expected: str | None, tmp_path: Path) -> None:
    lines = warnings_of(REAL + added + "\n", tmp_path)
    assert len(lines) == (0 if expected is None else 1), lines
    assert expected is None or lines[0].startswith(expected)


@pytest.mark.parametrize(
    ("model", "buckets", "expected"),
    [
        ("hub", "kind: generated, step: 60", "data.buckets.step: 60 is not a multiple of 8"),
        ("hub", "kind: generated, step: 56", None),
        ("miniature", "kind: paper", "data.buckets: paper means sizes near 1024"),
        ("miniature", "kind: generated, resolution: 64, step: 8", "data.buckets.step: 8 is not a multiple of 16"),
        ("miniature", "kind: generated, resolution: 64, step: 16", None),
    ],
)
def test_buckets_that_do_not_suit_the_model(model: str, buckets: str, expected: str | None, tmp_path: Path) -> None:
    text = REAL if model == "hub" else REAL.replace("{kind: hub, id: a/b}", "{kind: miniature}")
    lines = warnings_of(text, tmp_path, f"data.buckets={{{buckets}}}")
    assert len(lines) == (0 if expected is None else 1), lines
    assert expected is None or lines[0].startswith(expected)


def test_variants_of_a_file_whose_wording_is_replaced(tmp_path: Path) -> None:
    text = REAL.replace(
        "kind: folder, path: pictures", "kind: kohya_config, path: set.toml, variants: 4, wording: {prefix: a}"
    )
    [line] = warnings_of(text, tmp_path)
    assert line == "data.sources.0.variants: has no effect with a wording, which has its own"


def test_a_caption_ending_nobody_reads(tmp_path: Path) -> None:
    text = REAL.replace("path: pictures", "path: pictures, captions: metadata, caption_extension: .cap")
    [line] = warnings_of(text, tmp_path)
    assert line.startswith("data.sources.0.caption_extension: has no effect with captions: metadata")
    text = REAL.replace("path: pictures", "path: pictures, captions: files, metadata_file: meta_cap.json")
    [line] = warnings_of(text, tmp_path)
    assert line.startswith("data.sources.0.metadata_file: has no effect with captions: files")


@pytest.mark.parametrize(
    ("wording", "adapter", "expected"),
    [
        ("{}", "", None),
        ("{shuffle: true, keep_first: 2}", "", None),
        ("{tag_dropout: 0.1, separator: ' | '}", "", None),
        ("{choose_line: true, prefix: a}", "", None),
        (
            "{choose_line: true, variants: null}",
            "",
            "variants: has no effect without shuffle, tag_dropout or wildcards",
        ),
        ("{wildcards: true, keep_first: 1}", "", "keep_first: has no effect without shuffle or tag_dropout"),
        ("{wildcards: true, separator: ;}", "", "separator: has no effect without shuffle or tag_dropout"),
        ("{wildcards: true, variants: null}", "", "variants: null words captions anew"),
        ("{wildcards: true, variants: null}", "adapter: {text_encoder_2: {}}", None),
        ("{shuffle: true}", "adapter: {kind: vae}", "has no effect with adapter.kind: vae"),
    ],
)
def test_wordings(wording: str, adapter: str, expected: str | None, tmp_path: Path) -> None:
    lines = warnings_of(REAL.replace("path: pictures", f"path: pictures, wording: {wording}") + adapter, tmp_path)
    assert len(lines) == (0 if expected is None else 1), lines
    assert expected is None or (lines[0].startswith("data.sources.0.wording") and expected in lines[0])


@pytest.mark.parametrize(("weight", "expected"), [("0", "data.sources.*.loss_weight: is 0"), ("0.1", None)])
def test_pictures_that_count_nothing(weight: str, expected: str | None, tmp_path: Path) -> None:
    lines = warnings_of(REAL.replace("path: pictures", f"path: pictures, loss_weight: {weight}"), tmp_path)
    assert len(lines) == (0 if expected is None else 1), lines
    assert expected is None or lines[0].startswith(expected)


@pytest.mark.parametrize(
    ("trigger", "class_word", "expected"),
    [
        ("zrk", "zrk", "training.prior_preservation.class_word: 'zrk' is the trigger of data.sources.0"),
        ("zrk", " ZRK ", "training.prior_preservation.class_word: ' ZRK ' is the trigger of data.sources.0"),
        ("zrk", "dog", None),
        ("zrk", "", None),
        ("''", "", None),
        ("''", "dog", "training.prior_preservation.class_word: has no effect: no source has a trigger"),
    ],
)
def test_a_class_word_that_names_no_class(trigger: str, class_word: str, expected: str | None, tmp_path: Path) -> None:
    text = REAL.replace("path: pictures", f"path: pictures, trigger: {trigger}")
    lines = warnings_of(text + f'training: {{prior_preservation: {{class_word: "{class_word}"}}}}\n', tmp_path)
    assert len(lines) == (0 if expected is None else 1), lines
    assert expected is None or lines[0].startswith(expected)
