"""Publish a LoRA on the Hugging Face hub: the file, its card and the card's pictures, in one commit; nothing else.

What is sent is listed first, and a dry run ends there without a word to the network. The file has to be one that every
program it is meant for reads whole. The token is the hub library's own business: it is never read here, nor shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import AtelierError, RecipeError
from finetune.loras.card import card_folder
from finetune.naming.structure import ModelStructure
from finetune.readers.proof import Proof, prove, require_whole
from finetune.tensors.header import read_metadata

PRIVATE_KEYS = {
    "atelier_recipe": "the recipe, with prompts and folder names",
    "ss_tag_frequency": "the captions' tags",
    "ss_dataset_dirs": "the names of the picture folders",
}
"""What a header may tell that its owner might not want to publish."""


@dataclass(frozen=True)
class Upload:
    """What is published.

    Attributes:
        repo_id: the repository, `owner/name`.
        files: each file and its name in the repository.
        proof: what the readers make of the weights.
        tells: what the weights' header tells of the training, in words.
    """

    repo_id: str
    files: Sequence[tuple[Path, str]]
    proof: Proof
    tells: Sequence[str]


def plan_upload(path: Path, repo_id: str, structure: ModelStructure, *, check_readers: bool = True) -> Upload:
    """Gather what would be published; nothing is sent.

    Args:
        path: the LoRA file, whose card lies beside it.
        repo_id: `owner/name` on the hub.
        structure: the model the file is for.
        check_readers: whether a file that is not read whole is an error.

    Raises:
        RecipeError: that is no repository's name, or there is no card.
        AtelierError: the file cannot be trusted, or is not read whole.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RecipeError(f"{repo_id!r} is no repository's name on the hub: give owner/name") from error
    if repo_id.count("/") != 1:
        raise RecipeError(f"{repo_id!r} is no repository's name on the hub: give owner/name")
    proof = prove(path, structure)
    if check_readers:
        require_whole(proof)
    card = card_folder(path)
    if not (card / "README.md").is_file():
        raise RecipeError(f"{card} holds no card. Make one, and look at it: atelier lora card {path}")
    inside = [found for found in sorted(card.rglob("*")) if not found.is_dir()]
    strange = [found for found in inside if found.is_symlink() or not _belongs(found.relative_to(card))]
    if strange:
        raise RecipeError(f"{strange[0]}: belongs to no card. Take it out of the folder; only the card is published")
    files = [(path, path.name), *((found, found.relative_to(card).as_posix()) for found in inside)]
    metadata = read_metadata(path)
    return Upload(repo_id, files, proof, [words for key, words in PRIVATE_KEYS.items() if key in metadata])


def push(upload: Upload, *, private: bool, revision: str | None = None, create_pr: bool = False) -> str:
    """Publish, making the repository where there is none; return the address of what was committed.

    Args:
        upload: from `plan_upload`.
        private: whether a new repository is private; an older one stays as it is.
        revision: the branch; None is the main one.
        create_pr: propose the change instead of making it.

    Raises:
        AtelierError: nobody is logged in, or the hub refuses or cannot be reached.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if get_token() is None:
        raise AtelierError("nobody is logged in to the hub on this machine. Type: hf auth login")
    api = HfApi()
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for file, name in upload.files]
    try:
        api.create_repo(upload.repo_id, private=private, exist_ok=True)
        commit = api.create_commit(
            upload.repo_id,
            operations,
            commit_message=f"Upload {upload.files[0][1]}",
            revision=revision,
            create_pr=create_pr,
        )
    except HfHubHTTPError as error:
        said = error.server_message or str(error).partition("\n")[0]
        raise AtelierError(f"the hub refuses {upload.repo_id}: {said}. Check the name and `hf auth whoami`") from error
    except (OSError, httpx.HTTPError, OfflineModeIsEnabled) as error:
        raise AtelierError(f"the hub cannot be reached: {error}. Nothing was published") from error
    return str(commit.pr_url if create_pr else commit.commit_url)


def _belongs(inside: Path) -> bool:
    """Whether a file is one that cards are made of."""
    name = inside.as_posix()
    return name == "README.md" or (inside.parent.as_posix() == "images" and name.endswith((".jpg", ".png", ".webp")))
