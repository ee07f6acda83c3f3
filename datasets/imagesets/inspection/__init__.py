"""Everything about a set of pictures before it is trained on: what each becomes, and what is wrong with which.

It measures and words; printing, JSON and the page are views of the same `Inspection`. Buckets, frames and the order of
an epoch come from the modules that training uses and are not worked out again here.

    plan        what training will do          looks       one more look at the pixels: thumbnail and fingerprints
    facts       the set and each picture       near        which fingerprints are nearly alike
    captions    tags, triggers, repeats        rules_*     what is wrong, and what to do
    inspect     the whole of it                as_data     the same as plain data
"""

from imagesets.inspection.facts import InspectedPicture, Inspection
from imagesets.inspection.findings import Finding, Item, Severity
from imagesets.inspection.inspect import find_without_looking, inspect_pictures
from imagesets.inspection.plan import SourcePlan, TokenCount, TrainingPlan

__all__ = [
    "Finding",
    "InspectedPicture",
    "Inspection",
    "Item",
    "Severity",
    "SourcePlan",
    "TokenCount",
    "TrainingPlan",
    "find_without_looking",
    "inspect_pictures",
]
