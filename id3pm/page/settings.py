"""Settings of the sliders as options of a request."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from typing import Any

from id3pm.page.user_messages import PageError
from id3pm.sampling.presets import PRESETS, Preset

BUNDLE = "bundle"
QUALITIES: Mapping[str, str] = {
    "fast": "Fast",
    "balanced": "Balanced",
    "paper": "Paper",
    BUNDLE: "Model's own",
}
"""Names of the presets on the page. `bundle` is no preset: nothing is sent, and the served bundle decides."""
ALL_STEPS = 1000  # training timesteps; an interval that ends here has no end
MAX_SEED = 2**53 - 1
"""Greatest seed of the page: greater ones, which the service takes, a browser would round."""
_DICE = 2**31


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Every control of the panel, in the order in which the page passes them.

    Attributes:
        quality: Key of `QUALITIES`.
        seed: 0 .. `MAX_SEED`.
        steps: Steps of the 64 px stage; like all that follow, without effect where the quality is `bundle`.
        guidance_scale: 1 is no guidance.
        sampler: `ddpm`, `ddim` or `dpmpp_2m`.
        spacing: `uniform` or `logsnr`.
        eta: Noise of ddim; without effect on the other samplers.
        dynamic_threshold: Percentile, 0 is off.
        guidance_low: First training timestep with guidance.
        guidance_high: Last one; `ALL_STEPS` is no end.
        sr_steps: Steps of super-resolution.
    """

    quality: str
    seed: int
    steps: int
    guidance_scale: float
    sampler: str
    spacing: str
    eta: float
    dynamic_threshold: float
    guidance_low: int
    guidance_high: int
    sr_steps: int

    @classmethod
    def of_preset(cls, quality: str, seed: int) -> Settings:
        """Values of the sliders for each quality; those of `balanced` for the bundle's own."""
        preset = _preset("balanced" if quality == BUNDLE else quality)
        shown = {field.name for field in dataclasses.fields(cls)}  # the page has no control for some options
        values: dict[str, Any] = {name: value for name, value in vars(preset.base).items() if name in shown}
        values["guidance_high"] = min(values["guidance_high"], ALL_STEPS)
        return cls(quality=quality, seed=seed, sr_steps=preset.sr.steps, **values)

    @classmethod
    def of_controls(cls, values: tuple[Any, ...]) -> Settings:
        """From the controls' values, in order.

        Raises:
            PageError: A field is empty, or has a value that no request may have.
        """
        given = dict(zip((field.name for field in dataclasses.fields(cls)), values, strict=True))
        for name, value in given.items():
            if value is None:
                label = name.replace("_", " ")
                raise PageError(f"The field for the {label} is empty.", "Please put a number there, or pick a quality.")
        seed = given["seed"]
        if seed != int(seed) or not 0 <= seed <= MAX_SEED:
            raise PageError(
                f"{seed:g} cannot be a seed.", "Please take a whole number of at least 0, or let the dice choose one."
            )
        whole = ("seed", "steps", "guidance_low", "guidance_high", "sr_steps")
        checked: dict[str, Any] = {name: int(value) if name in whole else value for name, value in given.items()}
        return cls(**checked)

    def options(self) -> dict[str, Any]:
        """Options for the client: the preset, and the values changed since it was chosen.

        Raises:
            PageError: The guidance interval is empty.
        """
        if self.quality == BUNDLE:
            return {}
        if self.guidance_low > self.guidance_high:
            raise PageError(
                f"The guidance would begin at timestep {self.guidance_low}, after its end at {self.guidance_high}.",
                "Please move the two sliders past each other.",
            )
        there, start = dataclasses.asdict(self), dataclasses.asdict(Settings.of_preset(self.quality, self.seed))
        changed = {name: value for name, value in there.items() if value != start[name]}
        if self.sampler != "ddim":
            changed.pop("eta", None)  # the other samplers have none
        return {"preset": self.quality, **changed}

    @property
    def preview_every(self) -> int:
        """Steps between two previews: about 25 of them look smooth."""
        return 1 if self.quality == BUNDLE else max(1, self.steps // 25)


def dice() -> int:
    """A seed at random."""
    return secrets.randbelow(_DICE)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise PageError(
            f"There is no quality called {name!r}.", f"Please choose one of {', '.join(QUALITIES.values())}."
        )
    return PRESETS[name]
