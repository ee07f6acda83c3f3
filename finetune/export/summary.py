"""What a LoRA file says of its network in kohya's metadata, gathered while its modules are written."""

import json
from collections import Counter
from collections.abc import Iterable

from finetune.adapters.weights import AdaptedModule

_ALGORITHMS = {"LoRA": "lora", "LoHa": "loha", "LoKr": "lokr", "full": "full"}


class NetworkSummary:
    """Ranks, alphas and kinds of modules, without the modules.

    Attributes:
        num_modules: how many were added.
    """

    def __init__(self, modules: Iterable[AdaptedModule] = ()) -> None:
        """Begin with these modules."""
        self.num_modules = 0
        self._ranks: Counter[int] = Counter()
        self._alphas: Counter[float] = Counter()
        self._kinds: Counter[str] = Counter()
        self._dora_axes: set[int] = set()
        self._convolution: tuple[int, float] | None = None
        for module in modules:
            self.add(module)

    def add(self, module: AdaptedModule) -> None:
        """Take one more module into account."""
        self.num_modules += 1
        self._kinds[module.kind] += 1
        if module.magnitude is not None:
            self._dora_axes.add(module.magnitude_axis)
        if module.rank is None:
            return
        alpha = module.scale * module.rank
        self._ranks[module.rank] += 1
        self._alphas[float(f"{alpha:.7g}")] += 1  # float32's digits: more of them are noise
        # Only a kernel larger than one pixel makes a file one of LoRA on convolutions (kohya's conv_dim).
        if self._convolution is None and len(module.shape) == 4 and module.shape[-1] > 1:
            self._convolution = (module.rank, alpha)

    def metadata(self) -> dict[str, str]:
        """Return what A1111 and kohya's tools need to recognise the file, as strings."""
        kind = self._kinds.most_common(1)[0][0] if self._kinds else "LoRA"
        is_plain = set(self._kinds) <= {"LoRA"} and not self._dora_axes
        args: dict[str, str] = {} if is_plain else {"algo": _ALGORITHMS[kind]}
        if self._dora_axes:
            args |= {"dora_wd": "True", "wd_on_output": str(0 in self._dora_axes)}
        if self._convolution is not None:
            args |= {"conv_dim": str(self._convolution[0]), "conv_alpha": str(self._convolution[1])}
        return {
            "ss_network_module": "networks.lora" if is_plain else "lycoris.kohya",
            "ss_network_dim": _only(self._ranks),
            "ss_network_alpha": _only(self._alphas),
            "ss_network_args": json.dumps(args),
            "ss_v2": "False",
        }


def _only(values: Counter[int] | Counter[float]) -> str:
    return str(next(iter(values))) if len(values) == 1 else "Dynamic"
