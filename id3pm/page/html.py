"""Fragments of the page. All text is escaped here; pictures are data URIs, so they are not stored in files."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal

from PIL import Image

from id3pm.page.history import Entry, History, Verdict
from id3pm.page.people import Person, SimilarityScale
from id3pm.page.runs import Run, Tile
from id3pm.page.served import Served
from id3pm.page.user_messages import Notice

PICK = """
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-pick]');
  if (target) trigger('pick', {key: target.dataset.pick});
  if (event.target.closest('[data-again]')) trigger('again', {key: event.target.closest('[data-again]').dataset.again});
});
let last = null;
element.addEventListener('focusin', (event) => { last = event.target.dataset.pick; });
new MutationObserver(() => {
  if (last && document.activeElement === document.body)
    element.querySelector(`[data-pick="${CSS.escape(last)}"]`)?.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true});
"""
"""Tells Python which of the elements with `data-pick` or `data-again` was clicked; new content keeps the focus."""
_STAGES = {"denoiser_64": "64 px", "super_resolution": "256 px"}
_SHOWN = 28  # characters of a value in a table of differences


def data_uri(image: Image.Image, kind: Literal["PNG", "WEBP"] = "PNG") -> str:
    """A picture as a URI; WEBP for previews, at a tenth of the size."""
    file = io.BytesIO()
    if kind == "PNG":
        image.save(file, "PNG", compress_level=1)
    else:
        image.save(file, "WEBP", quality=85, method=0)
    return _uri(file.getvalue(), f"image/{kind.lower()}")


def status(ready: bool, text: str) -> str:
    """The status in the page's head."""
    return f'<span class="id-pill {"id-ready" if ready else "id-away"}" role="status">{escape(text)}</span>'


def notice(message: Notice | None) -> str:
    """A message, or nothing."""
    if message is None:
        return ""
    detail = message.detail and f"<details><summary>Details</summary><p>{escape(message.detail)}</p></details>"
    role = "alert" if message.kind == "problem" else "status"
    return (
        f'<div class="id-notice id-{message.kind}" role="{role}"><strong>{escape(message.title)}</strong> '
        f"{escape(message.advice)}{detail}</div>"
    )


def samples(pictures: Sequence[tuple[str, str]], chosen: str | None) -> str:
    """The sample people as buttons.

    Args:
        pictures: Name and data URI of each.
        chosen: Name of the chosen one.
    """
    buttons = "".join(
        f'<button type="button" data-pick="{i}" aria-pressed="{str(name == chosen).lower()}" title="{escape(name)}">'
        f'<img src="{uri}" alt="{escape(name)}"></button>'
        for i, (name, uri) in enumerate(pictures)
    )
    return f'<div class="id-samples">{buttons}</div>'


def person_card(person: Person | None) -> str:
    """The chosen person, as the detector found them."""
    if person is None:
        return '<div class="id-person id-empty">No person is chosen yet.</div>'
    faces = "One face found" if person.faces == 1 else f"{person.faces} faces found; the largest is taken"
    return (
        f'<div class="id-person"><img src="{data_uri(person.face)}" alt="the detected face"><div>'
        f"<strong>{escape(person.name)}</strong><span>{faces}, detection score {person.score:.2f}</span>"
        f"{_remarks(person)}</div></div>"
    )


def _remarks(person: Person) -> str:
    remarks = []
    if person.turned:
        remarks.append(f"The picture was turned by {abs(person.turned)} degrees: its face is upright now.")
    if person.photograph:
        remarks.append(
            "The demo bundles were trained on synthetic faces: from photographs of real people they reach little "
            "likeness so far."
        )
    return "".join(f"<span>{remark}</span>" for remark in remarks)


def requested_line(about: Served, chosen: Mapping[str, float]) -> str:
    """The requested attributes, and the values of the others.

    Args:
        about: What is served.
        chosen: Attribute to value, for those that were touched.
    """
    labels = {field.name: field.label for field in about.attributes}
    requested = ", ".join(f"{labels[name]} {value:g}" for name, value in chosen.items() if name in labels)
    if not requested:
        move = "Move one to ask for it." if about.free else "Move one, and all are asked for as they stand here."
        return f'<p class="id-line">All are free: the model chooses, and the seed decides. {move}</p>'
    others = "The others are free."
    if not about.free:
        others = "The others are asked for as they stand here, for this model knows all of them or none."
        if "neutral" in labels and "neutral" not in chosen:
            others += " Neutral is what the other emotions leave."
    return f'<p class="id-line">Asked for: <b>{escape(requested)}</b>. {others}</p>'


def empty_stage() -> str:
    """The placeholder before the first picture."""
    panes = "".join(f'<figure><div class="id-blank">{size}</div></figure>' for size in ("64 px", "256 px"))
    return (
        f'<div class="id-stage id-two">{panes}</div>'
        '<p class="id-line">Choose a person, then press <b>Make a picture</b>: the small picture forms step by step '
        "out of noise, then it is enlarged.</p>"
    )


def stage(run: Run, scale: SimilarityScale | None) -> str:
    """A run in any state."""
    messages = "".join(notice(message) for message in run.notices)
    if len(run.tiles) > 1:
        tiles = "".join(_tile(tile, scale) for tile in run.tiles)
        grid = f'<div class="id-stage id-many" style="--id-tiles: {len(run.tiles)}">{tiles}</div>'
        return messages + grid + _line(run, scale)
    (tile,) = run.tiles
    large = tile.large
    if tile.result is not None:
        large_pane = _figure(_uri(tile.result.png(), "image/png"), "256 px", "id-large")
    else:
        large_pane = _figure(None if large is None else data_uri(large, "WEBP"), "256 px", "id-large")
    small = None if tile.small is None else data_uri(tile.small)
    return (
        f'{messages}<div class="id-stage id-two">{_figure(small, "64 px", "id-small")}{large_pane}</div>'
        f"{_line(run, scale)}"
    )


def viewer(entry: Entry, scale: SimilarityScale | None) -> str:
    """A picture of the history in the place of a run."""
    small = None if entry.image.image_64 is None else data_uri(entry.image.image_64)
    large = _uri(entry.image.png(), "image/png")
    panes = _figure(small, "64 px", "id-small") + _figure(large, "256 px", "id-large")
    return (
        f'<div class="id-stage id-two">{panes}</div>'
        f'<p class="id-line" role="status"><b>{escape(entry.label)}</b> {_likeness(entry.likeness, scale)}</p>'
    )


def details(entry: Entry | None, verdict: Verdict | None = None) -> str:
    """How a picture was made, its downloads, its receipt, and whether it could be made again."""
    if entry is None:
        return ""
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in entry.settings.items())
    png, receipt = _uri(entry.image.png(), "image/png"), _uri(entry.receipt_json.encode(), "application/json")
    stem = escape(entry.file_stem)
    return (
        f'<div class="id-details"><dl>{rows}</dl><div class="id-actions">'
        f'<a class="id-button" id="download-png" download="{stem}.png" href="{png}">Download picture</a>'
        f'<a class="id-button" id="download-receipt" download="{stem}.json" href="{receipt}">Download receipt</a>'
        f'<button type="button" class="id-button" data-again="{entry.number}">Make again and compare</button></div>'
        f"{_verdict(verdict)}"
        f"<details><summary>Receipt: everything that determines this picture</summary>"
        f"<pre>{escape(entry.receipt_json)}</pre></details></div>"
    )


def history(pictures: History, chosen: Entry | None) -> str:
    """The pictures of the visit as buttons."""
    if not pictures.entries:
        return '<p class="id-line">Your pictures of this visit will be here.</p>'
    buttons = "".join(
        f'<button type="button" data-pick="{entry.number}" aria-pressed="{str(entry is chosen).lower()}" '
        f'title="{escape(entry.label)}"><img src="{data_uri(entry.image.image.resize((96, 96)), "WEBP")}" '
        f'alt="picture {entry.number}: {escape(entry.label)}"><span>{_short_likeness(entry.likeness)}</span></button>'
        for entry in pictures.entries
    )
    return f'<div class="id-history">{buttons}</div>'


def _tile(tile: Tile, scale: SimilarityScale | None) -> str:
    small = tile.result is None and tile.large is None
    picture = tile.small if small else tile.large
    uri = None if picture is None else data_uri(picture, "PNG" if small or tile.result else "WEBP")
    caption = tile.caption if tile.result is None else f"{tile.caption}: {_short_likeness(tile.likeness)}"
    bar = "" if tile.ended else _bar(tile.progress)
    return _figure(uri, caption, "id-small" if small else "id-large", bar)


def _figure(uri: str | None, caption: str, kind: str, below: str = "") -> str:
    picture = (
        f'<div class="id-blank">{escape(caption)}</div>'
        if uri is None
        else f'<img class="{kind}" src="{uri}" alt="{escape(caption)}" decoding="sync">'
    )
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption>{below}</figure>"


def _line(run: Run, scale: SimilarityScale | None) -> str:
    """The progress of a run, or its result."""
    if not run.ended:
        done = sum(tile.progress for tile in run.tiles) / len(run.tiles)
        return f'<p class="id-line" role="status">{escape(_doing(run))}</p>{_bar(done)}'
    if run.stopped:
        return '<p class="id-line" role="status"><b>Stopped.</b> The service has let go of the work.</p>'
    made = [tile for tile in run.tiles if tile.result is not None]
    if not made:
        return ""
    if len(made) > 1:
        said = f"{len(made)} pictures in {run.seconds:.1f} s. They are in the history below, with their receipts."
        return f'<p class="id-line" role="status">{said}</p>'
    return (
        f'<p class="id-line" role="status"><b>{escape(made[0].label)}</b> {_likeness(made[0].likeness, scale)} '
        f"Made in {run.seconds:.1f} s.</p>"
    )


def _doing(run: Run) -> str:
    working = [tile for tile in run.tiles if not tile.ended]
    if not any(tile.stage for tile in working):
        return "Waiting for the service ..."
    if len(run.tiles) > 1:
        return f"{len(run.tiles) - len(working)} of {len(run.tiles)} pictures are ready"
    (tile,) = run.tiles
    if tile.result is not None:
        return "Comparing the face with the one that was asked for ..."
    return f"{_STAGES[tile.stage]}: step {tile.step} of {tile.steps}"


def _bar(done: float) -> str:
    return f'<div class="id-bar"><div style="width: {100 * done:.0f}%"></div></div>'


def _likeness(value: float | None, scale: SimilarityScale | None) -> str:
    if value is None:
        return "No face is found in the result: more steps or another seed may help."
    if scale is None:
        return f"Likeness {value:.2f} of 1."
    return (
        f"Likeness {value:.2f}: {scale.words(value)}. "
        f'<span class="id-scale">Cosine of the ID vectors; different sample people have {scale.strangers:.2f} on '
        f"average, a picture and its mirror image {scale.same:.2f}. It does not say how natural the picture "
        "looks.</span>"
    )


def _short_likeness(value: float | None) -> str:
    return "no face" if value is None else f"{value:.2f}"


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{_brief(then)}</td><td>{_brief(now)}</td></tr>"
        for name, (then, now) in verdict.differences.items()
    )
    head = "<tr><th>what</th><th>in the receipt</th><th>now</th></tr>"
    return notice(verdict.notice) + (f'<table class="id-table">{head}{rows}</table>' if rows else "")


def _brief(value: object) -> str:
    text = "missing" if value is None else str(value)
    return escape(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
