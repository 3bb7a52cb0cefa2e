"""Error messages and HTML fragments of the page."""

from __future__ import annotations

import dataclasses
import io
import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm.attributes import describe_fields
from id3pm.errors import ImageError
from id3pm.formats.photo_decoding import decode_photo
from id3pm.page import html
from id3pm.page.history import Entry, History, Verdict
from id3pm.page.people import Person, SimilarityScale
from id3pm.page.runs import Run, Tile
from id3pm.page.served import read
from id3pm.page.user_messages import Notice, PageError, notice_for
from id3pm_client import (
    AccessDeniedError,
    CancelledRequestError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    NotServedError,
    OverloadedError,
    ReplayError,
)

VECTOR = np.ones(4, dtype=np.float32)
FREE_AND_NOT = ("landmarks", 3)  # attribute sets


@pytest.mark.parametrize(
    ("error", "title", "advice"),
    [
        (InvalidRequestError("no face was found in the 64x64 photo", code="no_face"), "no face", "well lit"),
        (InvalidRequestError("2 faces were found", code="several_faces"), "several faces", "crop"),
        (InvalidRequestError("the face is 9x9 px", code="face_too_small"), "too small", "closer"),
        (InvalidRequestError("the body has 70000000 bytes", code="too_large"), "too large", "32 MiB"),
        (OverloadedError("the queue is full", code="queue_full", retry_after_s=2.5), "busy", "in 3 seconds"),
        (OverloadedError("draining"), "busy", "in a minute"),
        (ConnectionFailedError("failed to connect to all addresses"), "cannot be reached", "try again"),
        (AccessDeniedError("the token is not known here"), "let this page in", "--token-file"),
        (NotServedError("unknown model"), "not the one", "--server"),
        (DeadlineExceededError("the deadline passed"), "longer than allowed", "fewer steps"),
        (CancelledRequestError("cancelled"), "stopped", "again"),
        (ReplayError("the server cannot make this image again"), "again exactly", "differences"),
        (InvalidRequestError("no face was found, writes a caller"), "cannot do this", "no face was found"),
        (InternalServerError("CUDA error"), "failed over this request", "try again"),
        (InvalidRequestError("guidance_scale=50: must be between 1 (off) and 10"), "cannot do this", "between 1 (off)"),
        (PageError("No person is chosen yet.", "Please pick a person."), "No person", "pick"),
    ],
)
def test_every_failure_says_what_happened_and_what_to_do(error: Exception, title: str, advice: str) -> None:
    notice = notice_for(error)
    assert title in notice.title and advice in notice.advice
    assert "Error" not in notice.title + notice.advice and "Traceback" not in html.notice(notice)


@pytest.mark.parametrize(
    ("data", "title"),
    [
        (b"GIF89a" + bytes(20), "not a picture that can be read here"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "damaged"),
    ],
)
def test_the_library_s_own_words_about_pictures_are_understood(data: bytes, title: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_photo(data)
    assert title in notice_for(caught.value).title


def test_a_picture_of_too_many_pixels_is_called_too_large() -> None:
    file = io.BytesIO()
    Image.new("L", (300, 300)).save(file, "PNG")
    with pytest.raises(ImageError) as caught:
        decode_photo(file.getvalue(), max_pixels=100)
    assert "too large" in notice_for(caught.value).title


def test_what_nobody_foresaw_goes_to_the_log_and_not_to_the_page(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        try:
            raise RuntimeError("secret path /srv/x")
        except RuntimeError as error:
            shown = html.notice(notice_for(error))
    assert "secret" not in shown and "secret path" in caplog.text


def test_the_page_says_which_attributes_are_asked_for_and_what_the_others_are() -> None:
    ours, papers = (read({"attributes": describe_fields(name)}) for name in FREE_AND_NOT)
    assert "All are free" in html.requested_line(ours, {}) and "Move one to ask for it." in html.requested_line(
        ours, {}
    )
    assert "all are asked for as they stand here" in html.requested_line(papers, {})
    said = html.requested_line(ours, {"yaw": -20.0, "smile": 0.8, "beard": 1})
    assert "<b>Yaw (degrees) -20, Smile 0.8</b>. The others are free." in said
    said = html.requested_line(papers, {"yaw": -20.0})
    assert "free" not in said and "as they stand here" in said and "Neutral is what the other emotions leave" in said
    assert "Neutral is" not in html.requested_line(papers, {"neutral": 0.5})


def test_names_and_messages_cannot_bring_markup_into_the_page() -> None:
    evil = "<img src=x onerror=alert(1)>"
    person = Person(evil, VECTOR, Image.new("RGB", (8, 8)), 1, 0.5)
    run = Run(None, [Tile(evil, evil, VECTOR, 1, notice=Notice(evil, evil, evil), ended=True)], {})  # type: ignore[arg-type]
    verdict = Verdict(Notice(evil, evil), {evil: (evil, None)})
    shown = [html.notice(Notice(evil, evil, evil)), html.person_card(person), html.status(True, evil)]
    shown += [html.samples([(evil, "data:,")], None), html.stage(run, None), html.details(entry(1, evil), verdict)]
    shown += [html.viewer(entry(1, evil), None), html.history(history(entry(1, evil)), None)]
    assert all("<img src=x" not in fragment for fragment in shown)


def test_several_faces_are_told() -> None:
    person = Person("x", VECTOR, Image.new("RGB", (8, 8)), 3, 0.93)
    assert "3 faces found; the largest is taken" in html.person_card(person)
    assert "0.93" in html.person_card(person)


@pytest.mark.parametrize(
    ("similarity", "words"),
    [(0.85, "100 % of the way"), (0.51, "50 % of the way"), (0.1, "no more than between two different people")],
)
def test_a_likeness_is_put_into_words_between_strangers_and_the_same_picture(similarity: float, words: str) -> None:
    assert words in SimilarityScale(strangers=0.17, same=0.85).words(similarity)


def test_the_downloads_are_the_bytes_that_save_writes(tmp_path: Any) -> None:
    import base64
    import re

    one = entry(7, "x")
    one.image.save(tmp_path / "a.png")
    links = dict(re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', html.details(one)))
    assert base64.b64decode(links["id3pm-07-seed-3.png"]) == (tmp_path / "a.png").read_bytes()
    assert base64.b64decode(links["id3pm-07-seed-3.json"]).decode() == one.receipt_json


def entry(number: int, label: str) -> Entry:
    from id3pm_client import GeneratedImage

    options = {"steps": 8, "sampler": "ddim", "guidance_scale": 2.0}
    receipt = {"seed": 3, "bundle": label, "stages": {"base": {"options": options}, "sr": {"options": options}}}
    image = GeneratedImage(Image.new("RGB", (256, 256)), Image.new("RGB", (64, 64)), 3, receipt, "id", 1.0)
    return Entry(number, label, VECTOR, image, 0.5)


def history(*entries: Entry) -> History:
    pictures = History()
    pictures.entries = list(entries)
    return pictures


def test_a_photograph_and_a_turned_face_are_remarked_on() -> None:
    level = Person("x", VECTOR, Image.new("RGB", (8, 8)), 1, 0.9)
    assert "turned" not in html.person_card(level) and "real people" not in html.person_card(level)
    turned = dataclasses.replace(level, turned=-90, photograph=True)
    assert "turned by 90 degrees" in html.person_card(turned) and "real people" in html.person_card(turned)
