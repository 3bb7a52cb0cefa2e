"""Frozen, typed configurations and their JSON form; a typo is an error.

Names follow guided-diffusion's `script_util.py` where a counterpart exists. The presets are Table 2 of the paper's
supplement (Kansy et al., ICCV-W 2023).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from id3pm.errors import ConfigError, InvalidOptionError

T = TypeVar("T")
SamplerName = Literal["ddpm", "ddim", "dpmpp_2m", "student"]
SpacingName = Literal["uniform", "logsnr"]
NoiseScheduleName = Literal["cosine", "linear"]
PredictionName = Literal["eps", "v"]
StudentStart = Literal["noise", "low_res"]
MAX_SEED = 2**63 - 1


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_all(rules: Mapping[str, bool]) -> None:
    """Raises ConfigError with the first rule that does not hold.

    Args:
        rules: Message, and whether its rule holds.
    """
    for message, holds in rules.items():
        require(holds, message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Architecture of one U-Net, as guided-diffusion's `create_model` / `sr_create_model` take it.

    Attributes:
        image_size: Height and width of the image that is denoised, in pixels.
        num_channels: Channels at the first level (`model_channels`).
        num_res_blocks: Residual blocks per level.
        channel_mult: Channel multiplier per level, first (finest) level first.
        attention_resolutions: Resolutions in pixels with self-attention (guided-diffusion's command-line meaning).
        num_heads: Attention heads; ignored where `num_head_channels` is set.
        num_head_channels: Channels per head, or `None` to use `num_heads`.
        num_heads_upsample: Heads in the decoder, or `None` for `num_heads`.
        dropout: Dropout rate inside residual blocks, in training only.
        learn_sigma: Output the variance interpolation too: 6 output channels instead of 3.
        resblock_updown: Residual blocks change the resolution instead of (strided) convolutions.
        conv_resample: Convolutions in resampling layers where `resblock_updown` is off.
        use_scale_shift_norm: Time embedding scales and shifts the normalised activations (FiLM).
        norm_groups: Groups of every group norm; guided-diffusion's are 32. If a group is a single channel, the norm
            before the last convolution removes every channel's mean, and the network cannot predict the mean of eps:
            colours drift. Narrow networks need fewer groups.
        use_new_attention_order: Split q, k, v before the heads (`QKVAttention`) instead of after.
        identity_dim: Length D of the ID vector, or `None` for no identity conditioning.
        attribute_dim: Length A of the attribute vector, or `None` for no attribute conditioning.
        low_res_size: Size in pixels of the image to upsample; set means super-resolution (`SuperResModel`).
        guidance_range: Lowest and highest guidance scale of a network that takes the scale as an input (a student, see
            `id3pm.training.distillation`), or `None` for a network without that input.
    """

    image_size: int
    num_channels: int
    num_res_blocks: int
    channel_mult: tuple[float, ...]
    attention_resolutions: tuple[int, ...]
    num_heads: int = 1
    num_head_channels: int | None = None
    num_heads_upsample: int | None = None
    dropout: float = 0.0
    learn_sigma: bool = True
    resblock_updown: bool = False
    conv_resample: bool = True
    use_scale_shift_norm: bool = True
    norm_groups: int = 32
    use_new_attention_order: bool = False
    identity_dim: int | None = None
    attribute_dim: int | None = None
    low_res_size: int | None = None
    guidance_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("image_size", "num_channels", "num_res_blocks", "num_heads", "norm_groups"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("num_head_channels", "num_heads_upsample", "identity_dim", "attribute_dim", "low_res_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name}={value}: must be null or at least 1")
        require(0.0 <= self.dropout < 1.0, f"dropout={self.dropout}: must be in [0, 1)")
        self._check_guidance_range()
        require(len(self.channel_mult) >= 1, "channel_mult is empty: name one multiplier per level")
        factor = 2 ** (len(self.channel_mult) - 1)
        require(
            self.image_size % factor == 0,
            f"image_size={self.image_size}: must be a multiple of {factor} for {len(self.channel_mult)} levels",
        )
        for mult in self.channel_mult:
            channels = int(mult * self.num_channels)
            require(
                channels >= self.norm_groups and channels % self.norm_groups == 0,
                f"channel_mult {mult} x num_channels {self.num_channels} = {channels}: "
                f"must be a multiple of {self.norm_groups} (group norm has norm_groups={self.norm_groups})",
            )
        for resolution in self.attention_resolutions:
            require(
                resolution >= 1 and self.image_size % resolution == 0,
                f"attention_resolutions has {resolution}: must divide image_size={self.image_size}",
            )

    def _check_guidance_range(self) -> None:
        if self.guidance_range is None:
            return
        shown = f"guidance_range={list(self.guidance_range)}"
        require(
            len(self.guidance_range) == 2 and 1.0 <= self.guidance_range[0] <= self.guidance_range[1] <= 10.0,
            f"{shown}: must be the lowest and the highest scale, within 1 .. 10",
        )
        require(
            self.identity_dim is not None or self.attribute_dim is not None,
            f"{shown}: a network without ID vector and attributes has nothing to guide; leave it out",
        )

    @property
    def in_channels(self) -> int:
        """Channels of the first convolution: 3, or 6 with the upsampled low-resolution image beside x_t."""
        return 3 if self.low_res_size is None else 6

    @property
    def out_channels(self) -> int:
        """3 channels of eps, and 3 of the variance interpolation where `learn_sigma` is on."""
        return 6 if self.learn_sigma else 3

    @property
    def evaluations_per_step(self) -> int:
        """Rows that a step of one image may need: two where guidance compares with and without condition, else one."""
        conditional = self.identity_dim is not None or self.attribute_dim is not None
        return 2 if conditional and self.guidance_range is None else 1

    def at_size(self, image_size: int) -> UNetConfig:
        """The same weights for images of another size: all sizes change by one factor, attention keeps its depths.

        Args:
            image_size: In pixels.

        Raises:
            ConfigError: A size of this network would not be a whole number of pixels.
        """

        def scaled(size: int) -> int:
            require(
                size * image_size % self.image_size == 0,
                f"image_size={image_size}: a network for {self.image_size} px with {size} px inside does not scale so",
            )
            return size * image_size // self.image_size

        return dataclasses.replace(
            self,
            image_size=image_size,
            low_res_size=None if self.low_res_size is None else scaled(self.low_res_size),
            attention_resolutions=tuple(map(scaled, self.attention_resolutions)),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The noising process a U-Net was trained with, and what it predicts.

    Attributes:
        diffusion_steps: T, the number of training timesteps.
        noise_schedule: `cosine` (Nichol and Dhariwal 2021) or `linear` (Ho et al. 2020).
        rescale_timesteps: Give the U-Net t * 1000 / T instead of t, as guided-diffusion can.
        prediction: What the output means: `eps`, the noise in x_t (Ho et al. 2020), or `v`, sqrt(abar) eps -
            sqrt(1 - abar) x0 (Salimans and Ho 2022), from which x0 is found without a large factor in pure noise, too.
        student_timesteps: The only timesteps at which a student was trained, ascending: one for each step that sampler
            `student` can make. `None` for a network that was trained at all of them.
        data_mean: Mean colour of the images that it was trained with, three numbers in [-1, 1]. A sampler then begins
            at noise + sqrt(abar) data_mean, as training images of its first timestep do, and not at noise alone, which
            the network takes for an image of medium grey (Lin et al. 2024, "Common Diffusion Noise Schedules and Sample
            Steps are Flawed"). `None` begins at noise alone: no difference where the first timestep is T - 1.
        student_start: What the first step of a student is given: `noise`, or for super-resolution `low_res`, the small
            image enlarged and noised to that step's timestep (as SDEdit begins, Meng et al. 2022).
    """

    diffusion_steps: int = 1000
    noise_schedule: NoiseScheduleName = "cosine"
    rescale_timesteps: bool = False
    prediction: PredictionName = "eps"
    student_timesteps: tuple[int, ...] | None = None
    data_mean: tuple[float, ...] | None = None
    student_start: StudentStart = "noise"

    def __post_init__(self) -> None:
        require(self.diffusion_steps >= 1, f"diffusion_steps={self.diffusion_steps}: must be at least 1")
        kept = self.student_timesteps
        if kept is not None:
            require(
                len(kept) >= 1 and list(kept) == sorted(set(kept)) and 0 <= kept[0] <= kept[-1] < self.diffusion_steps,
                f"student_timesteps={list(kept)}: must be one or more different ones, ascending, in 0 .. "
                f"{self.diffusion_steps - 1}",
            )
        mean = self.data_mean
        if mean is not None:
            require(
                len(mean) == 3 and all(-1 <= value <= 1 for value in mean),
                f"data_mean={list(mean)}: must be three numbers in [-1, 1]",
            )
        require(
            self.student_start == "noise" or kept is not None,
            f"student_start={self.student_start!r}: belongs to a student; leave 'noise' where there are no "
            "student_timesteps",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How one image is sampled by one stage. Defaults are the paper's for the 64 px stage.

    Attributes:
        sampler: `ddpm` (respaced ancestral sampling with the learned variance), `ddim` or `dpmpp_2m`; or `student`, the
            only one for the bundles that `id3pm distill` makes.
        steps: Evaluations of the U-Net; T is respaced to this many (paper: 250). A single step gives no face: it keeps
            timestep 0 alone, as guided-diffusion's respacing does, and so treats the noise as a finished image.
        spacing: Which timesteps these are: `uniform` in t (guided-diffusion's) or in `logsnr`; see
            `id3pm.diffusion.schedule.space_logsnr`.
        guidance_scale: Classifier-free guidance s in eps_u + s (eps_c - eps_u), 1 .. 10; 1 switches it off (paper: 2;
            1 .. 3 in its tables, up to 5 in Fig. 4).
        guidance_low: First training timestep (inclusive) at which guidance is on.
        guidance_high: Last training timestep (inclusive) at which guidance is on.
        dynamic_threshold: Imagen's percentile in (0, 1] for x0 (paper: 0.99); 0 clips x0 to [-1, 1] instead.
        eta: Noise of `ddim`, 0 (deterministic) .. 1; must be 0 for the other samplers.
        consistency: Super-resolution only: how closely the area reduction of every x0 is made to match the small image,
            0 (paper) .. 1 (exactly); see `id3pm.diffusion.guidance.make_consistent`.
    """

    sampler: SamplerName = "ddpm"
    steps: int = 250
    spacing: SpacingName = "uniform"
    guidance_scale: float = 2.0
    guidance_low: int = 0
    guidance_high: int = 1_000_000
    dynamic_threshold: float = 0.99
    eta: float = 0.0
    consistency: float = 0.0

    def __post_init__(self) -> None:
        if (broken := broken_rule(vars(self))) is not None:
            raise InvalidOptionError(broken)


def broken_rule(values: Mapping[str, Any], names: Mapping[str, str] = types.MappingProxyType({})) -> str | None:
    """What `SamplingOptions` with these values would break: value and rule, for people; `None` where all is well.

    Args:
        values: Of all fields, by name.
        names: What the reader calls a field, where that is another name: a caller of a service knows the steps of
            super-resolution as `sr_steps`.
    """
    shown = {field: f"{names.get(field, field)}={value!r}" for field, value in values.items()}
    samplers, spacings = typing.get_args(SamplerName), typing.get_args(SpacingName)
    low, high, threshold = (values[name] for name in ("guidance_low", "guidance_high", "dynamic_threshold"))
    eta, consistency = values["eta"], values["consistency"]
    eta_name = names.get("eta", "eta")
    rules = (  # a comparison with NaN is false
        (values["sampler"] in samplers, f"{shown['sampler']}: choose one of {', '.join(samplers)}"),
        (values["spacing"] in spacings, f"{shown['spacing']}: choose one of {', '.join(spacings)}"),
        (1 <= values["steps"] <= 1000, f"{shown['steps']}: must be between 1 and 1000"),
        (1.0 <= values["guidance_scale"] <= 10.0, f"{shown['guidance_scale']}: must be between 1 (off) and 10"),
        (0 <= low <= high, f"{shown['guidance_low']}, {shown['guidance_high']}: need 0 <= low <= high"),
        (0.0 <= threshold <= 1.0, f"{shown['dynamic_threshold']}: must be 0 (off) or a percentile in (0, 1]"),
        (0.0 <= eta <= 1.0, f"{shown['eta']}: must be in [0, 1]"),
        (
            eta == 0.0 or values["sampler"] == "ddim",
            f"{shown['eta']} with {shown['sampler']}: {eta_name} belongs to ddim; leave it at 0",
        ),
        (0.0 <= consistency <= 1.0, f"{shown['consistency']}: must be in [0, 1]"),
    )
    return next((rule for holds, rule in rules if not holds), None)


PAPER_BASE_64 = UNetConfig(
    image_size=64,
    num_channels=192,
    num_res_blocks=3,
    channel_mult=(1, 2, 3, 4),
    attention_resolutions=(32, 16, 8),
    num_heads=3,
    dropout=0.1,
    resblock_updown=True,
    use_new_attention_order=True,
    identity_dim=512,
)
PAPER_SR_256 = UNetConfig(
    image_size=256,
    num_channels=192,
    num_res_blocks=2,
    channel_mult=(1, 1, 2, 2, 4, 4),
    attention_resolutions=(32, 16, 8),
    num_heads=4,
    resblock_updown=True,
    low_res_size=64,
)
UNET_PRESETS: Mapping[str, UNetConfig] = types.MappingProxyType(
    {"paper-base-64": PAPER_BASE_64, "paper-sr-256": PAPER_SR_256}
)
PAPER_BASE_DIFFUSION = DiffusionConfig(noise_schedule="cosine")
PAPER_SR_DIFFUSION = DiffusionConfig(noise_schedule="linear")
PAPER_BASE_SAMPLING = SamplingOptions()
PAPER_SR_SAMPLING = SamplingOptions(guidance_scale=1.0, dynamic_threshold=0.0)


def to_json(config: Any) -> dict[str, Any]:
    """A JSON-ready dict of a configuration: tuples become lists, nested ones dicts, nothing is left out."""
    return {key: _plain(value) for key, value in vars(config).items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return list(value) if isinstance(value, tuple) else value


def from_json(cls: type[T], data: Mapping[str, Any]) -> T:
    """A configuration of class `cls` from a JSON object.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or breaks a rule.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{cls.__name__}: expected a JSON object, got {type(data).__name__}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(data) - set(fields)):
        raise ConfigError(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(fields)}")
    required = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(data)):
        raise ConfigError(f"{cls.__name__} needs {', '.join(missing)}")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _typed(cls, key, hints[key], value) for key, value in data.items()})


def _typed(cls: type, key: str, hint: Any, value: Any) -> Any:
    """`value` as the type that the field's annotation names; lists become tuples, objects configurations."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        origin = typing.get_origin(option)
        if option is type(None) and value is None:
            return None
        if origin is Literal and value in typing.get_args(option):
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            return tuple(_typed(cls, key, typing.get_args(option)[0], item) for item in value)
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        if origin is list and isinstance(value, list):
            return [_typed(cls, key, typing.get_args(option)[0], item) for item in value]
        if origin is dict and isinstance(value, Mapping):
            return {name: _typed(cls, f"{key}.{name}", typing.get_args(option)[1], v) for name, v in value.items()}
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return _nested(key, option, value)
        if option is Any or (option in (int, bool, str) and type(value) is option):
            return value
    expected = " or ".join(str(getattr(option, "__name__", option)) for option in options)
    raise ConfigError(f"{cls.__name__}.{key}={value!r}: expected {expected}")


def _nested(key: str, cls: Any, data: Mapping[str, Any]) -> Any:
    try:
        return from_json(cls, data)
    except (ConfigError, InvalidOptionError) as error:
        raise ConfigError(f"{key}: {error}") from error
