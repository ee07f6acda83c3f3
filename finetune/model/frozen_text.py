"""Texts encoded by encoders that are not trained: one encoder is in memory at a time, and none afterwards."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from finetune.model.files import ModelFiles
from finetune.model.text import TextEmbeddings, encode_first, encode_second
from finetune.model.text_reader import EncoderTexts, TextReader

Progress = Callable[[int, int], None]
"""(done, total), called as encoding goes on; it may raise to stop it."""

TEXTS_AT_ONCE = 1024
"""How many texts go through the first encoder before the second takes its place: their states are kept meanwhile,
some 240 KB a chunk of 75 tokens with SDXL's."""


def encode_texts(
    files: ModelFiles,
    reader: TextReader,
    texts: Sequence[str],
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress,
) -> Iterator[tuple[str, TextEmbeddings]]:
    """Encode distinct texts with the first encoder, then with the second; give each result, on the CPU in `dtype`.

    Each text is encoded alone: an embedding never depends on its neighbours. Progress counts each text once an encoder.
    """
    passes = 2 if files.has_first_encoder() else 1
    for begin in range(0, len(texts), TEXTS_AT_ONCE):
        block = texts[begin : begin + TEXTS_AT_ONCE]
        read = reader.read(block)
        counted = _Counted(progress, passes * begin, passes * len(texts))
        first = _encode_by_first(files, read, dtype, device, counted)
        second = _encode_by_second(files, read, first, dtype, device, counted)
        yield from zip(block, second, strict=True)
    progress(passes * len(texts), passes * len(texts))


def text_dtype(weight_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the precision frozen encoders compute in: float32 on a CPU, the run's own elsewhere.

    Few CPUs multiply in bf16; where they do not, it is emulated and takes three times as long (measured).
    """
    return torch.float32 if device.type == "cpu" else weight_dtype


def unseen(_done: int, _total: int) -> None:
    """Report no progress: there is nothing to wait for."""


class _Counted:
    """Counts on from what was done before."""

    def __init__(self, progress: Progress, done: int, total: int) -> None:
        self._progress = progress
        self._done = done
        self._total = total

    def __call__(self) -> None:
        self._progress(self._done, self._total)
        self._done += 1


def _encode_by_first(
    files: ModelFiles,
    texts: Sequence[EncoderTexts],
    dtype: torch.dtype,
    device: torch.device,
    counted: Callable[[], None],
) -> list[Tensor | None]:
    """Return each text's hidden states by the first encoder, or None where the model has none."""
    encoder = files.load_text_encoder(dtype)
    if encoder is None:
        return [None] * len(texts)
    encoder = encoder.to(device, text_dtype(dtype, device))
    hidden: list[Tensor | None] = []
    for text in texts:
        assert text.first is not None, "the first encoder has a tokenizer"
        counted()
        with torch.no_grad(), _own_precision(device):
            hidden.append(encode_first(encoder, [text.first])[0].cpu())
    return hidden


def _encode_by_second(
    files: ModelFiles,
    texts: Sequence[EncoderTexts],
    first: list[Tensor | None],
    dtype: torch.dtype,
    device: torch.device,
    counted: Callable[[], None],
) -> Iterator[TextEmbeddings]:
    """Give each text's joined hidden states and pooled embedding; takes what the first encoder gave out of `first`."""
    encoder = files.load_text_encoder_2(dtype).to(device, text_dtype(dtype, device))
    for index, text in enumerate(texts):
        counted()
        with torch.no_grad(), _own_precision(device):
            [hidden], pooled = encode_second(encoder, [text.second])
            states = [each for each in (first[index], hidden.cpu()) if each is not None]
            first[index] = None
            embeddings = TextEmbeddings(torch.cat(states, dim=-1), pooled).to("cpu", dtype)
        yield embeddings  # outside of the block: a generator would leave its caller in it


def _own_precision(device: torch.device) -> torch.autocast:
    """Shut an autocast around the call out: a step that finds a damaged value encodes in the middle of one."""
    return torch.autocast(device.type, enabled=False)
