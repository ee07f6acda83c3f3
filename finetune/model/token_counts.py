"""How many tokens captions have, by both tokenizers of a model: without torch, without weights, without the network.

A model's tokenizer is built from its own files by the `tokenizers` library, as transformers' `CLIPTokenizer` builds it.
A model that is not on this machine yet is not fetched for it: CLIP's vocabulary, which every SDXL has, ships.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from finetune.errors import RecipeError
from finetune.model.clip_vocabulary import END, START, clip_vocabulary
from finetune.model.text_tokens import Reading, TextTokens, read_texts
from finetune.recipe.schema import FolderModel, HubModel, MiniatureModel, Model, SingleFileModel
from imagesets.emphasis import places_in
from imagesets.inspection import TokenCount

_PARTS = ("tokenizer", "tokenizer_2")
_MINIATURE = Path(__file__).parent / "miniature" / "base"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_BATCH = 1000


@dataclass(frozen=True)
class TokenCounter:
    """Counts tokens by the tokenizers of one model.

    Attributes:
        tokenizers: by name, 'tokenizer' and 'tokenizer_2'; a refiner has the second alone.
        origin: in words, whose they are.
        reading: how much of a caption is read, and whether brackets in it are weights.
    """

    tokenizers: dict[str, Tokenizer]
    origin: str
    reading: Reading = field(default_factory=Reading)

    def __call__(self, captions: Sequence[str]) -> list[tuple[TokenCount, ...]]:
        """Return what each tokenizer makes of each caption; weights' brackets are not counted, nor begin and end."""
        distinct = list(dict.fromkeys(captions))
        counted: dict[str, list[TokenCount]] = {caption: [] for caption in distinct}
        for name, tokenizer in self.tokenizers.items():
            for start in range(0, len(distinct), _BATCH):
                batch = distinct[start : start + _BATCH]
                for caption, tokens in zip(batch, read_texts(tokenizer, batch, self.reading), strict=True):
                    counted[caption].append(self._count(name, caption, tokens))
        return [tuple(counted[caption]) for caption in captions]

    def _count(self, name: str, caption: str, tokens: TextTokens) -> TokenCount:
        if not tokens.num_cut_off:
            return TokenCount(name, len(tokens.ids))
        begin = tokens.begin_of(tokens.num_read)
        if self.reading.weighted:
            begin = places_in(caption)[begin]
        return TokenCount(name, len(tokens.ids), caption[begin:].strip())


def open_token_counter(model: Model, reading: Reading | None = None) -> TokenCounter:
    """Find a model's tokenizers on this machine.

    Args:
        model: whose tokenizers count.
        reading: how captions are read; None: as a recipe has it that does not say.

    Raises:
        RecipeError: the recipe names files that are not there, or no tokenizers.
    """
    folder, origin = _find(model)
    reading = Reading() if reading is None else reading
    if folder is None:
        vocabulary, merges = clip_vocabulary()
        both = {part: build_tokenizer(vocabulary, merges, pad) for part, pad in zip(_PARTS, (END, "!"), strict=True)}
        return TokenCounter(both, origin, reading)
    found = {part: read_tokenizer(folder / part) for part in _PARTS if (folder / part).is_dir()}
    if not found:
        raise RecipeError(f"{folder} holds no tokenizer: tokenizer_2/vocab.json is missing")
    return TokenCounter(found, origin, reading)


def _find(model: Model) -> tuple[Path | None, str]:
    """Return the folder with the tokenizers' folders, or None for those that ship, and in words whose they are."""
    match model:
        case MiniatureModel():
            return _MINIATURE, "the miniature's tokenizers"
        case FolderModel(path=path):
            return Path(path).expanduser(), f"the tokenizers in {path}"
        case SingleFileModel(config=config):
            if config is not None:
                return Path(config).expanduser(), f"the tokenizers in {config}"
            return None, "CLIP's tokenizers, which every SDXL has"
        case HubModel():
            cached = _in_hub_cache(model)
            if cached is not None:
                return cached, f"the tokenizers of {model.id}"
            return None, f"CLIP's tokenizers, which every SDXL has ({model.id} is not downloaded yet)"


def _in_hub_cache(model: HubModel) -> Path | None:
    """Return where the hub's cache holds the model's tokenizers, or None; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    for part in reversed(_PARTS):
        found = try_to_load_from_cache(model.id, f"{part}/vocab.json", revision=model.revision)
        if isinstance(found, str):
            return Path(found).parent.parent
    return None


def read_tokenizer(folder: Path) -> Tokenizer:
    """Build a tokenizer from a folder as diffusers saves it: tokenizer.json, or vocab.json and merges.txt.

    Raises:
        RecipeError: files are missing or damaged.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return tokenizer
        vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        lines = (folder / "merges.txt").read_text("utf-8").split("\n")
        merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)
                  if right and not left.startswith("#version")]  # fmt: skip
        return build_tokenizer(vocabulary, merges, _pad_token(folder))
    # `tokenizers` raises plain Exception where a file does not fit.
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise RecipeError(f"the tokenizer in {folder} cannot be read: {said}. Get the model again") from error


def build_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], pad_token: str) -> Tokenizer:
    """Build CLIP's tokenizer, part for part as transformers' `CLIPTokenizer` has it.

    Args:
        vocabulary: the id of every token.
        merges: in their order.
        pad_token: is cut out of a text wherever it stands; '!' in SDXL's second tokenizer, so that '!!!' is three.
    """
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, continuing_subword_prefix="",
                                     end_of_word_suffix="</w>", fuse_unk=False, unk_token=END))  # fmt: skip
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in dict.fromkeys((START, END, pad_token))]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def _pad_token(folder: Path) -> str:
    """Return the padding token that the folder's settings name; the end token where they name none."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            pad = json.loads((folder / name).read_text("utf-8")).get("pad_token")
            pad = pad.get("content") if isinstance(pad, dict) else pad
            if isinstance(pad, str):
                return pad
    return END
