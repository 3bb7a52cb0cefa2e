"""Sliders for the attributes of the served bundle."""

from __future__ import annotations

from typing import Any

import gradio as gr

from id3pm.page import html
from id3pm.page.events import QUIET
from id3pm.page.served import Field, Served

_FEW = 12  # of so few attributes, all groups are open


def attribute_panel(served: gr.State, chosen: gr.State) -> None:
    """Sliders for the attributes; nothing for a bundle without.

    Args:
        served: `Served`.
        chosen: Attribute to value, for those that were touched.
    """

    @gr.render(inputs=[served])  # type: ignore[untyped-decorator]
    def attributes(about: Served) -> None:
        if about.attributes:
            with gr.Accordion("Attributes", open=False, elem_id="attributes"):
                _Sliders(about, chosen)


class _Sliders:
    """The sliders of one bundle, a line that says what is asked for, and a button that takes all of it back."""

    def __init__(self, about: Served, chosen: gr.State) -> None:
        self._about = about
        self._chosen = chosen
        self._line = gr.HTML(html.requested_line(about, {}), elem_id="requested", apply_default_css=False)
        moved: list[Any] = []
        for group, fields in about.groups.items():
            name, few = group.replace("_", " "), len(about.attributes) <= _FEW
            with (
                gr.Accordion(name.capitalize(), open=few, elem_id=f"attributes-{name.replace(' ', '-')}"),
                gr.Row(elem_classes="id-pairs"),
            ):
                for field in fields:
                    moved += self._free(field) if field.free else [self._slider(field)]
        forget = gr.Button("Leave all free", size="sm", elem_id="leave-free")
        starts = [start for field in about.groups.values() for each in field for start in _untouched(each)]
        forget.click(lambda: [{}, html.requested_line(about, {}), *starts], None, [chosen, self._line, *moved], **QUIET)

    def _slider(self, field: Field, *ticked: Any) -> Any:
        """The slider of a field; moving it ticks the boxes."""
        step = 1 if field.high - field.low >= 20 else (field.high - field.low) / 100
        slider = gr.Slider(
            field.low,
            field.high,
            field.start,
            step=step,
            label=field.label,
            buttons=[],  # a reset would move it without asking
            interactive=True,  # Gradio would guess that some elements, which are outputs too, are displays only
            elem_id=f"attribute-{field.name}",
            elem_classes="id-value",
        )

        def touched(value: Any, chosen: dict[str, float]) -> list[Any]:
            return [*self._with(field, value, chosen), *(True for _ in ticked)]

        # Without preprocessing, which refuses what is out of range: the browser sets it right when the field is left.
        outputs = [self._chosen, self._line, *ticked]
        slider.input(touched, [slider, self._chosen], outputs, preprocess=False, **QUIET)
        return slider

    def _free(self, field: Field) -> list[Any]:
        """A slider with a checkbox, ticked if its value is requested; else the page shows it as free."""
        with gr.Row(elem_classes="id-attribute"):
            box = gr.Checkbox(
                False,
                label="ask",
                container=False,
                min_width=56,
                scale=0,
                interactive=True,
                elem_id=f"ask-{field.name}",
                elem_classes="id-ask",
            )
            slider = self._slider(field, box)

        def ticked(on: bool, value: Any, chosen: dict[str, float]) -> tuple[Any, ...]:
            if on:
                return self._with(field, value, chosen)
            left = {name: other for name, other in chosen.items() if name != field.name}
            return left, html.requested_line(self._about, left)

        box.input(ticked, [box, slider, self._chosen], [self._chosen, self._line], preprocess=False, **QUIET)
        return [box, slider]

    def _with(self, field: Field, value: Any, chosen: dict[str, float]) -> tuple[Any, ...]:
        """The requested attributes after a slider has moved; an empty number field becomes 0."""
        requested = {**chosen, field.name: field.within(float(value or 0))}
        return requested, html.requested_line(self._about, requested)


def _untouched(field: Field) -> list[Any]:
    """Values of the elements of `_Sliders` for an untouched field."""
    return [False, field.start] if field.free else [field.start]
