"""What the page's script shows, picture by picture, as plain data with short keys: it is there once a picture."""

import base64
from typing import Any

from imagesets.inspection.facts import InspectedPicture, Inspection
from imagesets.inspection.rules_masks import share_in_words
from imagesets.inspection.rules_pictures import cut_in_words, mode_in_words, turn_in_words


def page_data(inspection: Inspection, max_pictures: int) -> dict[str, Any]:
    """Return pictures, findings and duplicates as the script takes them; only the first `max_pictures` pictures."""
    facts = inspection.facts
    return {
        "maxTokens": facts.plan.max_tokens,
        "randomCrop": facts.plan.crop == "random",
        "severalSources": len({picture.sample.source for picture in facts.pictures}) > 1,
        "pictures": [_picture(inspection, picture) for picture in facts.pictures[:max_pictures]],
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "text": finding.text,
                "items": {item.sample: item.text for item in finding.items if item.sample is not None},
            }
            for finding in inspection.findings
        ],
        "groups": [
            {"same": same, "pictures": [index for index in group if index < max_pictures]}
            for same, groups in ((True, facts.same), (False, facts.near))
            for group in groups
        ],
    }


def _picture(inspection: Inspection, picture: InspectedPicture) -> dict[str, Any]:
    sample, frame = picture.sample, picture.frame
    thumbnail = picture.look.thumbnail if picture.look is not None else None
    return {
        "name": sample.name,
        "source": sample.source,
        "format": sample.facts.format,
        "mode": mode_in_words(sample.facts.mode),
        "turn": turn_in_words(sample.facts.orientation),
        "orientation": sample.facts.orientation,
        "alpha": sample.facts.has_alpha,
        "mask": share_in_words(picture),
        "frames": sample.facts.num_frames,
        "repeats": sample.repeats,
        "size": frame.original_size,
        "bucket": frame.target_size,
        "resized": frame.resized_size,
        "scale": round(picture.scale, 3),
        "cut": round(picture.cut_fraction, 4),
        "cutWords": cut_in_words(picture),
        "kept": [round(edge, 4) for edge in picture.kept_box],
        "caption": sample.caption,
        "tokens": [count.count for count in picture.tokens],
        "beyond": picture.beyond,
        "findings": inspection.findings_of.get(picture.index, []),
        "thumbnail": None if thumbnail is None else base64.b64encode(thumbnail).decode("ascii"),
    }
