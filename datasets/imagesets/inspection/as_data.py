"""An inspection as plain data, for programs. `docs/inspect.md` says what each key means; keys are only ever added."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from imagesets.inspection.buckets import BucketFacts
from imagesets.inspection.facts import InspectedPicture, Inspection
from imagesets.inspection.findings import SEVERITIES, Finding

VERSION = 1


def as_data(inspection: Inspection, thumbnails: Sequence[str | None] | None = None) -> dict[str, Any]:
    """Return everything found out, as dicts, lists, text and numbers; sizes are [height, width] in pixels.

    Args:
        inspection: what was found out.
        thumbnails: names of the files that were written of the pictures, by index; None where none were.
    """
    names = thumbnails if thumbnails is not None else [None] * len(inspection.facts.pictures)
    facts, plan = inspection.facts, inspection.facts.plan
    severities = Counter(finding.severity for finding in inspection.findings)
    return {
        "version": VERSION,
        "name": inspection.name,
        "summary": {
            "pictures": len(facts.pictures),
            "unusable": len(facts.report.bad),
            "showings_per_epoch": None if facts.report.is_beginning else facts.showings,
            "buckets": len(facts.buckets),
            "micro_batch_size": plan.micro_batch_size,
            "global_batch_size": plan.micro_batch_size * plan.batches_per_step,
            "steps_per_epoch": None if facts.report.is_beginning else plan.steps_per_epoch,
            "steps": plan.steps,
            "epochs": round(plan.steps / plan.steps_per_epoch, 2)
            if plan.steps and plan.steps_per_epoch and not facts.report.is_beginning
            else None,
            **{f"{severity}s": severities[severity] for severity in SEVERITIES},
        },
        "findings": [finding_as_data(finding) for finding in inspection.findings],
        "buckets": [_bucket(bucket) for bucket in facts.buckets],
        "captions": _captions(inspection),
        "duplicates": {
            "same": [_names(inspection, group) for group in facts.same],
            "nearly_same": [_names(inspection, group) for group in facts.near],
        },
        "pictures": [
            _picture(inspection, picture) | {"thumbnail": name}
            for picture, name in zip(facts.pictures, names, strict=True)
        ],
        "unusable": [{"source": bad.source, "name": bad.name, "reason": bad.reason} for bad in facts.report.bad],
    }


def finding_as_data(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain data; `picture` is the sample's index in the scan."""
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "text": finding.text,
        "advice": finding.advice,
        "items": [
            {"name": item.name, "source": item.source, "text": item.text, "picture": item.sample}
            for item in finding.items
        ],
    }


def _bucket(bucket: BucketFacts) -> dict[str, Any]:
    return {
        "size": list(bucket.size),
        "pictures": bucket.pictures,
        "showings_per_epoch": bucket.showings,
        "batches_per_epoch": bucket.batches,
        "in_last_short_batch": bucket.left_over,
    }


def _captions(inspection: Inspection) -> dict[str, Any]:
    captions = inspection.facts.captions
    return {
        "distinct": captions.distinct,
        "missing": _names(inspection, captions.missing),
        "empty": _names(inspection, captions.empty),
        "repeated": [_names(inspection, group) for group in captions.repeated],
        "num_tags": captions.num_tags,
        "single_tags": captions.single_tags,
        "tags": [{"tag": tag, "captions": count} for tag, count in captions.tags],
        "triggers": [
            {
                "source": each.source,
                "trigger": each.trigger,
                "pictures": each.pictures,
                "with_trigger": each.with_trigger,
                "alone": each.alone,
                "elsewhere": _names(inspection, each.elsewhere),
            }
            for each in captions.triggers
        ],
        "max_tokens": inspection.facts.plan.max_tokens,
        "token_source": inspection.token_source,
    }


def _picture(inspection: Inspection, picture: InspectedPicture) -> dict[str, Any]:
    sample, frame = picture.sample, picture.frame
    left, top, right, bottom = picture.kept_box
    return {
        "name": sample.name,
        "source": sample.source,
        "sha256": sample.sha256,
        "format": sample.facts.format,
        "mode": sample.facts.mode,
        "has_alpha": sample.facts.has_alpha,
        "orientation": sample.facts.orientation,
        "num_frames": sample.facts.num_frames,
        "original_size": list(frame.original_size),
        "bucket": list(frame.target_size),
        "resized_size": list(frame.resized_size),
        "crop_top_left": list(frame.crop_top_left),
        "scale": round(picture.scale, 4),
        "cut_fraction": round(picture.cut_fraction, 4),
        "mask": _mask(picture),
        "kept": {"left": round(left, 4), "top": round(top, 4), "right": round(right, 4), "bottom": round(bottom, 4)},
        "repeats": sample.repeats,
        "caption": sample.caption,
        "tokens": {count.tokenizer: count.count for count in picture.tokens},
        "beyond": picture.beyond,
        "findings": [inspection.findings[place].kind for place in inspection.findings_of.get(picture.index, ())],
    }


def _mask(picture: InspectedPicture) -> dict[str, Any] | None:
    mask = picture.sample.mask
    if mask is None:
        return None
    return {"name": mask.name, "share": round(mask.share, 4), "weight_outside": mask.weight_outside}


def _names(inspection: Inspection, indices: "tuple[int, ...]") -> list[dict[str, Any]]:
    samples = inspection.facts.report.samples
    return [{"picture": index, "source": samples[index].source, "name": samples[index].name} for index in indices]
