"""The page: layout and event handlers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, TypeAlias

import gradio as gr

from id3pm.page import html
from id3pm.page.app_state import AppState
from id3pm.page.attributes import attribute_panel
from id3pm.page.events import QUIET
from id3pm.page.history import History, make_again
from id3pm.page.panel import Panel, space_sliders
from id3pm.page.picker import Picker
from id3pm.page.runs import Tile
from id3pm.page.served import Served
from id3pm.page.settings import Settings
from id3pm.page.user_messages import PageError, notice_for
from id3pm.page.visits import NAME, Visits

TITLE = "Faces from ID vectors"
CSS = Path(__file__).with_name("page.css")
THEME = gr.themes.Base(
    primary_hue="blue",
    neutral_hue="slate",
    radius_size="md",
    font=["Inter", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
)
HEAD = '<meta name="referrer" content="no-referrer">'
_POLICY = Path(__file__).with_name("responsible_use.md")  # a copy of docs/responsible_use.md, for wheels
_LINK = re.compile(r"\[([^\[\]]*)\]\([^()]*\)")  # to files that a page does not have
_HEADER = """<div class="id-head"><div><h1>Faces from ID vectors</h1>
<p>A face-recognition model turns a face into a list of numbers, the ID vector. ID3PM turns the numbers back into
faces.</p></div>%s</div>"""
_FOOTER = """<p class="id-foot">Your photographs are deleted as soon as their ID vector has been read; ID vectors and
pictures stay in the memory of this page, for this visit alone. Please use it only with faces of people who agreed to
it, or who do not exist: the sample people are such. Every picture says in its metadata that a model made it.</p>"""
_SHOW_RESULT = """() => {
  const card = document.querySelector('#result'), stage = document.querySelector('#stage').getBoundingClientRect();
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (stage.top < 0 || stage.bottom > innerHeight) card.scrollIntoView({behavior: still ? 'auto' : 'smooth'});
}"""
"""The picture forms where it is seen: on a phone, the settings above it fill the window."""
_REFRESH_S = 10  # seconds between two looks at the service
_KEEP = gr.skip()
Shown: TypeAlias = "tuple[Any, ...]"


def build(app_state: AppState, uploads: Path) -> gr.Blocks:
    """The page.

    Args:
        app_state: The service and the runs.
        uploads: Folder for dropped files, Gradio's temporary one; they are deleted as soon as they are read.
    """
    page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 60))
    with page:
        _Page(app_state, uploads, page)
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


class _Page:
    """The elements of the page, and what they do."""

    def __init__(self, app_state: AppState, uploads: Path, page: gr.Blocks) -> None:
        self._state = app_state
        self._visits = Visits()
        self._head = gr.HTML(_HEADER % html.status(False, "looking for the service"), apply_default_css=False)
        self._problem = gr.HTML("", elem_id="problem", elem_classes="id-messages", apply_default_css=False)
        with gr.Row(elem_classes="id-columns"):
            with gr.Column(scale=6, min_width=340):
                self._choices(uploads)
            with gr.Column(scale=8, min_width=420):
                self._results()
        with gr.Accordion("Responsible use: the policy", open=False, elem_id="policy"):
            gr.Markdown(_LINK.sub(r"\1", _POLICY.read_text(encoding="utf-8")))
        gr.HTML(_FOOTER, apply_default_css=False)
        self._wire(page)

    def _choices(self, uploads: Path) -> None:
        with gr.Column(elem_classes="id-card"):
            gr.HTML("<h2>1. Whose face?</h2>", apply_default_css=False)
            self._first = Picker(self._state, uploads, "first")
        with gr.Column(elem_classes="id-card"):
            gr.HTML("<h2>2. How?</h2>", apply_default_css=False)
            self._panel = Panel()
            self._served, self._attributes = gr.State(Served()), gr.State({})
            attribute_panel(self._served, self._attributes)
            with gr.Accordion("Blend with a second person", open=False, elem_id="blend"):
                self._second = Picker(self._state, uploads, "second", removable=True)
                self._t = gr.Slider(
                    0,
                    1,
                    0.5,
                    step=0.05,
                    label="How much of the second person",
                    info="0 is the first person alone, 1 the second.",
                    elem_id="t",
                )
                self._strip = gr.Button("Show five steps from one to the other", size="sm", elem_id="strip")
            self._space = space_sliders(self._state)

    def _results(self) -> None:
        with gr.Column(elem_classes="id-card", elem_id="result"):
            with gr.Row(elem_classes="id-bar-of-buttons"):
                self._make = gr.Button("Make a picture", variant="primary", elem_id="make")
                self._four = gr.Button("Four seeds", elem_id="four")
                self._stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
            self._stage = gr.HTML(html.empty_stage(), elem_id="stage", apply_default_css=False)
            self._details = gr.HTML("", js_on_load=html.PICK, elem_id="details", apply_default_css=False)
        with gr.Column(elem_classes="id-card"):
            gr.HTML("<h2>Your pictures</h2>", apply_default_css=False)
            self._pictures = gr.HTML(
                html.history(History(), None), js_on_load=html.PICK, elem_id="history", apply_default_css=False
            )
        self._history = gr.State(None)
        self._visit = gr.Textbox(visible=False)

    def _wire(self, page: gr.Blocks) -> None:
        page.load(self._load, None, [self._head, self._problem, self._served], **QUIET)
        back = [self._history, self._stage, self._details, self._pictures, self._visit]
        page.load(self._restore, self._visit, back, js=NAME, **QUIET)
        status = [self._head, self._problem, self._served]
        gr.Timer(_REFRESH_S).tick(self._refresh, self._visit, status, **QUIET)
        inputs = [self._first.person, self._second.person, self._t, self._attributes, self._history]
        inputs += [*self._panel.controls, *self._space]
        shown = [self._stage, self._details, self._pictures, self._history, self._make, self._four, self._strip]
        shown.append(self._stop)
        for button, work in ((self._make, self._one), (self._four, self._several), (self._strip, self._between)):
            # Without preprocessing: a number out of range is refused below, in the page's own words.
            button.click(work, inputs, shown, preprocess=False, **QUIET)
            button.click(None, None, None, js=_SHOW_RESULT, **QUIET)
        self._stop.click(self._stop_run, None, None, queue=False, **QUIET)
        viewed = [self._stage, self._details, self._pictures]
        self._pictures.pick(self._view, self._history, viewed, **QUIET)
        self._details.again(self._again, self._history, self._details, **QUIET)
        page.unload(self._stop_run)

    async def _load(self) -> tuple[str, str, Served]:
        pill, problem, about = await self._state.load()
        return _HEADER % pill, html.notice(problem), about

    def _restore(self, visit: object) -> Shown:
        """A tab has been opened, or loaded anew: its pictures are there, the newest one is shown."""
        history = self._visits.history(visit)
        newest = history.entries[0] if history.entries else None
        stage = html.empty_stage() if newest is None else html.viewer(newest, self._state.similarity_scale)
        return history, stage, html.details(newest), html.history(history, newest), visit

    async def _refresh(self, visit: object) -> tuple[Any, ...]:
        self._visits.history(visit)  # the tab is open, so its pictures are kept
        pill, problem, about = await self._state.refresh()
        return _HEADER % pill, html.notice(problem), _KEEP if about is None else about

    async def _one(self, request: gr.Request, *inputs: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        async for shown in self._work("one", request, inputs):
            yield shown

    async def _several(self, request: gr.Request, *inputs: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        async for shown in self._work("several", request, inputs):
            yield shown

    async def _between(self, request: gr.Request, *inputs: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        async for shown in self._work("between", request, inputs):
            yield shown

    async def _work(self, what: str, request: gr.Request, inputs: tuple[Any, ...]) -> AsyncGenerator[Shown, None]:
        """A run from the press of a button to its pictures in the history."""
        first, second, t, attributes, history, *values = inputs
        history = History() if history is None else history
        controls, walk = values[: len(self._panel.controls)], values[len(self._panel.controls) :]
        try:
            settings = Settings.of_controls(tuple(controls))
            if what == "between":
                tiles = self._state.strip(first, second, settings.seed)
            else:
                vector, label = self._state.target(first, second, t, walk)
                one = [Tile(label, label, vector, settings.seed)]
                tiles = one if what == "one" else self._state.variations(vector, label, settings.seed)
            run = await self._state.begin(
                str(request.session_hash), tiles, settings.options(), attributes, settings.preview_every
            )
        except Exception as error:
            yield self._shown(stage=html.notice(notice_for(error)) + html.empty_stage())
            return
        async with contextlib.aclosing(run.watch()) as looks:
            async for _ in looks:
                if not run.ended:
                    yield self._shown(stage=html.stage(run, self._state.similarity_scale), details="", busy=True)
        new = history.add(run)
        entry = new[0] if len(new) == 1 else None
        yield self._shown(
            stage=html.stage(run, self._state.similarity_scale),
            details=html.details(entry),
            pictures=html.history(history, entry),
            history=history,
        )

    @staticmethod
    def _shown(
        stage: Any, details: Any = _KEEP, pictures: Any = _KEEP, history: Any = _KEEP, busy: bool = False
    ) -> Shown:
        """The outputs of a run: while it is busy, Stop takes the place of the buttons that begin one."""
        idle = gr.update(visible=not busy)
        return stage, details, pictures, history, idle, idle, gr.update(interactive=not busy), gr.update(visible=busy)

    async def _stop_run(self, request: gr.Request) -> None:
        await self._state.stop(str(request.session_hash))

    def _view(self, history: History | None, event: gr.EventData) -> tuple[Any, ...]:
        """A picture of the history is shown in the place of a run."""
        try:
            pictures = History() if history is None else history
            entry = pictures.entry(event._data.get("key"))
        except PageError as error:
            return html.notice(error.notice), _KEEP, _KEEP
        return html.viewer(entry, self._state.similarity_scale), html.details(entry), html.history(pictures, entry)

    async def _again(self, history: History | None, event: gr.EventData) -> str:
        """A picture is made once more from its receipt."""
        try:
            entry = (History() if history is None else history).entry(event._data.get("key"))
        except PageError as error:
            return html.notice(error.notice)
        return html.details(entry, await make_again(self._state.client, entry))
