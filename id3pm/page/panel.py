"""The panel of sampling settings: quality, seed, sliders."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import gradio as gr

from id3pm.config import SamplerName, SpacingName
from id3pm.page.app_state import AppState
from id3pm.page.events import QUIET
from id3pm.page.settings import ALL_STEPS, BUNDLE, QUALITIES, Settings, dice

_START = Settings.of_preset("balanced", seed=1)
# docs/sampling.md, docs/control.md: 500 held-out faces, the demo bundle, SFace.
_STEPS = "More steps take longer, and bring no more likeness: 0.67 with 10 steps, 0.60 with 250 (demo bundle)."
_GUIDANCE = (
    "How strongly the ID vector steers. 1 is without guidance. Likeness 0.61 at 1, 0.68 at 2, 0.67 at 3 (demo bundle); "
    "more guidance brings caricatures and less variety between seeds."
)


class Panel:
    """Quality, seed and the settings behind them.

    Attributes:
        controls: All of them, in the order of the fields of `Settings`.
    """

    def __init__(self) -> None:
        """Puts it on the page that is being built."""
        quality = _quality()
        seed, roll = _seed()
        with gr.Column() as by_hand:
            moved = _main_settings()
            with gr.Accordion("Fine settings", open=False):
                moved += _fine_settings()
        own = gr.HTML(
            '<p class="id-line">The served model brings its own settings; nothing to adjust.</p>',
            visible=False,
            apply_default_css=False,
        )
        self.controls: list[Any] = [quality, seed, *moved]
        quality.input(_follow, [quality, seed], [by_hand, own, *moved], preprocess=False, **QUIET)
        roll.click(dice, None, seed, **QUIET)


def _quality() -> gr.Radio:
    return gr.Radio(
        [(label, name) for name, label in QUALITIES.items()],
        value=_START.quality,
        label="Quality",
        info="Fast takes a fraction of a second, Paper many. Each sets the sliders below.",
        elem_id="quality",
    )


def _seed() -> tuple[gr.Number, gr.Button]:
    """The seed, and the button that draws another."""
    with gr.Row(equal_height=True, elem_classes="id-seed"):
        seed = gr.Number(
            _START.seed,
            label="Seed",
            info="Same seed, same picture; another seed, another one.",
            precision=0,
            minimum=0,
            elem_id="seed",
            scale=4,
        )
        return seed, gr.Button("Dice", elem_id="dice", scale=1, min_width=72)


def _main_settings() -> list[Any]:
    return [
        gr.Slider(2, 250, _START.steps, step=1, label="Steps", info=_STEPS, elem_id="steps"),
        gr.Slider(1, 10, _START.guidance_scale, step=0.1, label="Guidance", info=_GUIDANCE, elem_id="guidance"),
    ]


def _fine_settings() -> list[Any]:
    return [
        gr.Dropdown(
            [name for name in get_args(SamplerName) if name != "student"],
            value=_START.sampler,
            label="Sampler",
            elem_id="sampler",
        ),
        gr.Dropdown(list(get_args(SpacingName)), value=_START.spacing, label="Spacing of the timesteps"),
        gr.Slider(0, 1, _START.eta, step=0.05, label="Fresh noise at each step (eta)", info="For the sampler ddim."),
        gr.Slider(
            0,
            1,
            _START.dynamic_threshold,
            step=0.01,
            label="Dynamic threshold (percentile)",
            info="Keeps strong guidance from bleaching the picture; 0 switches it off.",
        ),
        gr.Slider(0, ALL_STEPS, _START.guidance_low, step=10, label="Guidance from timestep"),
        gr.Slider(
            0, ALL_STEPS, _START.guidance_high, step=10, label="Guidance up to timestep", info="1000 is pure noise."
        ),
        gr.Slider(2, 250, _START.sr_steps, step=1, label="Steps of the enlargement to 256 px", elem_id="sr-steps"),
    ]


def _follow(quality: str, seed: float | None) -> list[Any]:
    """After the choice of a quality: sets the sliders to its values, or hides them."""
    own = quality == BUNDLE
    start = dataclasses.asdict(Settings.of_preset(quality, int(seed or 0)))
    del start["quality"], start["seed"]
    return [gr.update(visible=not own), gr.update(visible=own), *start.values()]


def space_sliders(app_state: AppState) -> list[Any]:
    """One slider for each custom direction and each of the first principal axes; none where the bundle has no files."""
    if not app_state.space.sliders:
        return []
    with gr.Accordion("Directions of the face space", open=False, elem_id="space"):
        gr.Markdown(
            "These change who it is. Directions are in standard deviations of people; the axes, along which faces "
            "differ most, in lengths of the ID vector."
        )
        with gr.Row(elem_classes="id-pairs"):
            return [
                gr.Slider(
                    -slider.limit,
                    slider.limit,
                    0,
                    step=slider.step,
                    label=slider.label,
                    info=slider.help or None,
                    elem_id=f"move-{slider.name}",
                )
                for slider in app_state.space.sliders
            ]
