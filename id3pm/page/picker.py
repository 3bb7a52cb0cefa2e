"""The part of the page that chooses a person; there are two, one for each person of a blend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from id3pm.page import html
from id3pm.page.app_state import AppState
from id3pm.page.events import QUIET
from id3pm.page.people import Person
from id3pm.page.uploads import take
from id3pm.page.user_messages import notice_for


class Picker:
    """Sample people, a field to drop a photograph into, and a card with the chosen person.

    Attributes:
        person: The visitor's choice, `Person` or `None`.
        card: Shows it; changes whenever a person has been chosen.
    """

    def __init__(self, app_state: AppState, uploads: Path, name: str, *, removable: bool = False) -> None:
        """Puts it on the page that is being built.

        Args:
            app_state: Finds the faces.
            uploads: The one folder that a dropped file may lie in.
            name: Begins the ids of its elements.
            removable: Let the visitor take the choice back.
        """
        self._state = app_state
        self._uploads = uploads
        self.person = gr.State(None)
        gr.HTML('<p class="id-line">Pick a person who does not exist:</p>', apply_default_css=False)
        self._samples = gr.HTML(
            html.samples(app_state.pictures, None),
            js_on_load=html.PICK,
            elem_id=f"{name}-samples",
            apply_default_css=False,
        )
        gr.HTML('<p class="id-line">or drop a photograph with a face (JPEG, PNG or WebP):</p>', apply_default_css=False)
        self._drop = gr.File(
            label="A photograph with a face: JPEG, PNG or WebP",
            show_label=False,
            file_types=["image"],
            height=132,
            elem_id=f"{name}-drop",
            elem_classes="id-drop",
        )
        self._message = gr.HTML("", elem_id=f"{name}-message", elem_classes="id-messages", apply_default_css=False)
        self.card = gr.HTML(html.person_card(None), elem_id=f"{name}-card", apply_default_css=False)
        shown = [self.person, self.card, self._samples, self._message]
        self._samples.pick(self._picked, None, shown, **QUIET)
        # Without preprocessing: Gradio's own leaves a second, empty file behind.
        self._drop.upload(
            self._dropped,
            self._drop,
            [*shown, self._drop],
            preprocess=False,
            **QUIET,
        )

        if removable:
            remove = gr.Button("Without a second person", size="sm", elem_id=f"{name}-remove")
            remove.click(self._removed, None, shown, **QUIET)

    async def _picked(self, event: gr.EventData) -> tuple[Any, ...]:
        try:
            person = await self._state.sample(event._data.get("key"))
        except Exception as error:
            return self._refused(error)
        return self._chosen(person)

    async def _dropped(self, file: Any) -> tuple[Any, ...]:
        try:
            shown = self._chosen(await self._state.uploaded_person(take(file, self._uploads)))
        except Exception as error:
            shown = self._refused(error)
        return (*shown, None)

    def _chosen(self, person: Person) -> tuple[Any, ...]:
        return person, html.person_card(person), html.samples(self._state.pictures, person.name), ""

    def _removed(self) -> tuple[Any, ...]:
        return None, html.person_card(None), html.samples(self._state.pictures, None), ""

    def _refused(self, error: Exception) -> tuple[Any, ...]:
        """Whoever was chosen before stays chosen."""
        return gr.skip(), gr.skip(), gr.skip(), html.notice(notice_for(error))
