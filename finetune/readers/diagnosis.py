"""What is broken or awkward about a file, in plain words: its name, what happens in which reader, what to do.

The rules of the readers say what each makes of a file; here what is behind it is told: which program or slip writes
such files. Each finding is a small function over a proof, in `findings_of_names` and `findings_of_numbers`.
"""

from collections.abc import Mapping

from finetune.readers import findings_of_names, findings_of_numbers
from finetune.readers.finding import Finding, Severity
from finetune.readers.proof import Proof

_ORDER: Mapping[Severity, int] = {"broken": 0, "awkward": 1, "note": 2}


def diagnose(proof: Proof) -> tuple[Finding, ...]:
    """Return what there is to say about a file, the worst first."""
    looks = (*findings_of_names.LOOKS, *findings_of_numbers.LOOKS)
    found = [finding for look in looks if (finding := look(proof)) is not None]
    return tuple(sorted(found, key=lambda finding: _ORDER[finding.severity]))
