"""Blocks of text for the page: facts, findings, buckets, a caption cut into what is read and what is not."""

from pathlib import Path

from webui.dataset_desk.operations import Plan
from webui.dataset_desk.report import Report, ShownFinding, ShownPicture
from webui.dataset_desk.tokens import Counted
from webui.dataset_desk.view import View
from webui.pages.parts import empty, fact_list, file_address, page_address
from webui.words import as_text, lines_as_text

_ITEMS_SHOWN = 100

NOTHING_YET = empty(
    "No folder is open",
    "Choose a folder of pictures and press Inspect. Nothing in it is changed by that.\n"
    "Captions lie beside pictures: cat.txt beside cat.png.",
)


def report_words(view: View, line: str) -> str:
    """Return what the set is, where it goes on, and the line to type that says the same."""
    report = view.report
    assert report is not None, "there is something to say"
    address = as_text(page_address("recipe", pictures=view.name))
    link = f'<p class="after-facts"><a href="{address}" id="dataset-use">Use these pictures in a recipe</a></p>'
    note = f'<p class="read-only">{as_text(view.read_only)}</p>' if view.read_only else ""
    return (
        f"{fact_list(report.facts())}"
        f"{link if report.pictures else ''}{note}"
        f'<p class="after-facts subdued">The same by the command line: <code>{as_text(line)}</code>. '
        f"Tokens are counted by {as_text(report.token_source)}.</p>"
    )


def finding_words(report: Report) -> str:
    """Return what is wrong, the worst first, each with what to do and what it is about."""
    if not report.findings:
        return empty("Nothing wrong was found", "Every picture and caption can be trained on as it is.")
    return f'<ul class="messages">{"".join(map(_finding, report.findings))}</ul>'


def bucket_words(report: Report) -> str:
    """Return a table of the buckets."""
    if not report.buckets:
        return ""
    most = max(bucket.pictures for bucket in report.buckets)
    rows = "".join(
        f"<tr><th scope='row'>{bucket.size[0]} x {bucket.size[1]}</th><td>{bucket.pictures:,}</td>"
        f'<td><progress max="{most}" value="{bucket.pictures}" aria-hidden="true"></progress></td></tr>'
        for bucket in report.buckets
    )
    return (
        '<table class="buckets"><caption>Buckets: the sizes pictures are trained at (height x width)</caption>'
        f"<tbody>{rows}</tbody></table>"
    )


def page_words(view: View) -> str:
    """Return which part of the pictures the gallery shows, and how many are selected."""
    if view.report is None:
        return ""
    if not view.report.pictures:
        return empty("No picture can be used", "What is wrong with each is said above.")
    num_shown = len(view.shown)
    if not num_shown:
        return empty("No picture is like that", "Show all buckets and findings again, and clear the search.")
    first = view.page * 60 + 1
    last = first + len(view.on_page) - 1
    of = f"{num_shown:,}" if num_shown == len(view.report.pictures) else (
        f"{num_shown:,} that are like that, {len(view.report.pictures):,} in all")  # fmt: skip
    return (
        f'<p role="status">Pictures {first:,} to {last:,} of {of}. '
        f"<strong>{len(view.selected):,} selected</strong>.</p>"
    )


def picture_words(picture: ShownPicture | None, shown: Path | None) -> str:
    """Return one picture with what training makes of it."""
    if picture is None:
        return empty("No picture is open", "Click one above.")
    image = (
        f'<img src="{as_text(file_address(str(shown)))}" alt="{as_text(picture.name)}">' if shown is not None else ""
    )
    height, width = picture.original_size
    facts = [
        ("Picture", f"{height} x {width}"),
        ("Trained at", f"{picture.bucket[0]} x {picture.bucket[1]}"),
        ("Scaled by", f"{picture.scale:.2f}"),
        ("Cut away", f"{picture.cut_fraction:.0%}"),
    ]
    return f'<div class="one-picture">{image}{fact_list(facts)}</div>'


def token_words(counted: Counted, problem: str = "") -> str:
    """Return how many tokens a caption has, and, where it is long, which part of it is read in which chunk.

    Args:
        counted: the tokens.
        problem: why the caption cannot be changed; '' where it can.
    """
    line = f'<p class="read-only">{as_text(problem)}</p>' if problem else ""
    line += f'<p role="status">{as_text(counted.line)}.</p>'
    if len(counted.chunks) > 1 or counted.beyond:
        chunks = "".join(f'<span class="chunk">{as_text(chunk)}</span>' for chunk in counted.chunks)
        beyond = (
            f'<mark class="beyond">{as_text(counted.beyond)}</mark><p><strong>Marked: is not read.</strong> '
            "Put first what matters.</p>"
            if counted.beyond
            else ""
        )
        line += f'<div class="tokens">{chunks}{beyond}</div>'
    return f'{line}<p class="subdued">Counted by {as_text(counted.origin)}.</p>'


def plan_words(plan: Plan, num_chosen: int, read_only: str) -> str:
    """Return what a change would do, or why it cannot be made."""
    if not num_chosen:
        return empty("No picture is selected", "Click pictures above, or take those that are shown.")
    if not plan.changes:
        said = f"Nothing changes: none of the {num_chosen:,} captions is concerned."
    else:
        files = f"{plan.num_files:,} file{'' if plan.num_files == 1 else 's'}"
        said = f"{len(plan.changes):,} of {num_chosen:,} captions change, in {files}. Nothing is written yet."
    left = f"<br>{as_text(read_only)}" if read_only else ""
    if plan.unchangeable:
        name, reason = plan.unchangeable[0]
        left += f"<br>{len(plan.unchangeable):,} cannot be changed, as {as_text(name)}: {as_text(reason)}."
    return f'<p role="status">{as_text(said)}{left}</p>'


def _finding(finding: ShownFinding) -> str:
    shown = finding.items[:_ITEMS_SHOWN]
    items = "".join(f"<li>{as_text(name)}{': ' + as_text(text) if text else ''}</li>" for name, text in shown)
    more = len(finding.items) - len(shown)
    items += f"<li>and {more:,} more</li>" if more else ""
    count = len(finding.items)
    which = (
        f"<details><summary>{count:,} {'entry' if count == 1 else 'entries'}</summary><ul>{items}</ul></details>"
        if count
        else ""
    )
    return (
        f'<li class="{as_text(finding.severity)}"><b>{as_text(finding.severity.capitalize())}</b> '
        f"{lines_as_text(finding.text)}. {lines_as_text(finding.advice)}.{which}</li>"
    )
