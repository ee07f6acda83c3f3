"""What the page 'Recipe' says, as HTML in which every text from a recipe or from pictures is text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from webui.pages.parts import empty, fact_list, message_list, page_address
from webui.recipe_form.differences import differences
from webui.recipe_form.launching import Begun
from webui.recipe_form.looking import Look, Mark
from webui.words import as_text, lines_as_text

_MOST = 40


def beside(marks: Iterable[Mark]) -> str:
    """Return what stands below a setting."""
    return "".join(
        f'<p class="{"warning" if mark.is_warning else "error"}" role="status">'
        f"<b>{'Warning' if mark.is_warning else 'Problem'}</b> {lines_as_text(mark.words)}</p>"
        for mark in marks
    )


def summary(look: Look) -> str:
    """Return all that is wrong, with its lines; or that nothing is."""
    problems = look.num_problems
    if not look.marks:
        return '<p class="recipe-fine" role="status"><b>No problem found.</b> Check looks at the pictures, too.</p>'
    warnings = len(look.marks) - problems
    head = _counted(problems, "problem") if problems else f"No problem, but {_counted(warnings, 'warning')}"
    listed = [("warning" if mark.is_warning else "error", _line(mark)) for mark in look.marks]
    more = f"<p>… and {len(listed) - _MOST} more.</p>" if len(listed) > _MOST else ""
    return f'<p role="status"><b>{head}</b></p>{message_list(listed[:_MOST])}{more}'


def difference_table(look: Look) -> str:
    """Return what this recipe says otherwise than its presets."""
    found = differences(look)
    base = as_text(", ".join(_names(look)) or "the defaults")
    if look.form is None:
        return empty("The YAML cannot be read", "The problem is told above, with its line.")
    if not found:
        return empty("Nothing differs yet", "What you change is listed here, beside the preset's value.")
    rows = "".join(
        f"<tr><th scope='row'><code>{as_text(each.key)}</code></th><td>{lines_as_text(each.before) or '—'}</td>"
        f"<td>{lines_as_text(each.now) or '—'}</td></tr>"
        for each in found
    )
    return (
        f'<div class="table-scroll"><table class="differences"><caption>Compared with {base}</caption><thead><tr>'
        f"<th scope='col'>Setting</th><th scope='col'>Preset</th><th scope='col'>This recipe</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def checked(found: Mapping[str, Any]) -> str:
    """Return what `atelier check` found, in words."""
    bad, stops = found.get("bad_pictures", []), found.get("stops", [])
    facts = [("Pictures", str(found.get("pictures", 0))), ("Unusable", str(len(bad)))]
    facts.append(("Steps", str(found.get("steps", ""))))
    if "epochs" in found:
        facts += [("Steps an epoch", str(found["steps_per_epoch"])), ("Epochs", str(found["epochs"]))]
    listed = [("error", str(stop)) for stop in stops]
    listed += [("error", f"{each['name']}: {each['reason']}") for each in bad[:_MOST]]
    listed += [("warning", str(warning)) for warning in found.get("warnings", [])[:_MOST]]
    listed += [("note", _finding(each)) for each in found.get("findings", []) if each.get("severity") == "note"][:_MOST]
    buckets = "".join(
        f"<tr><th scope='row'>{as_text(each['height'])} × {as_text(each['width'])}</th>"  # noqa: RUF001
        f"<td>{as_text(each['pictures'])}</td></tr>"
        for each in found.get("buckets", [])
    )
    table = buckets and (
        "<table class='differences'><caption>Sizes that pictures are cut to</caption><thead><tr><th scope='col'>"
        f"Height × width</th><th scope='col'>Pictures</th></tr></thead><tbody>{buckets}</tbody></table>"  # noqa: RUF001
    )
    can_start = not stops and found.get("pictures") and not bad
    head = "Ready: nothing stands in a run's way." if can_start else "Checked. What is listed needs a look."
    return f'<p role="status"><b>{head}</b></p>{fact_list(facts)}{message_list(listed)}{table}'


def refused(error: Exception) -> str:
    """Return why a check said nothing else."""
    return message_list([("error", str(error))])


def begun(run: Begun, head: str) -> str:
    """Return that a run was asked for, how to type it, and where to look at it."""
    where = as_text(page_address("monitor", run=run.run))
    return (
        f'<p role="status"><b>{as_text(head)}</b> <code>{as_text(run.line)}</code></p>'
        f'<p><a href="{where}">Watch it on the Monitor page</a></p>'
    )


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def _finding(each: Mapping[str, Any]) -> str:
    advice = each.get("advice") or ""
    return f"{each.get('text', '')} {advice}".strip()


def _line(mark: Mark) -> str:
    where = "" if mark.line is None else f"line {mark.line}: "
    return f"{where}{mark.key + ': ' if mark.key else ''}{mark.text}"


def _names(look: Look) -> Sequence[str]:
    return extended(look.text)


def extended(text: str) -> list[str]:
    """Return the presets that a text extends; none where it cannot be read."""
    from finetune.recipe import RecipeProblems
    from webui.recipe_form.document import read

    try:
        names = read(text).get("extends")
    except RecipeProblems:
        return []
    return [str(name) for name in names] if isinstance(names, list) else [] if names is None else [str(names)]
