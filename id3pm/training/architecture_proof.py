"""Finds the architecture of a checkpoint among those of equal shapes: by pictures, or by a stored output.

The right network predicts the noise of a noisy picture better than any other that the weights fit. All candidates see
the same pictures under the same noise, and their errors are compared picture by picture: so few pictures show small
differences. The ID vector is left out: with the null vector no face-recognition model is needed.
"""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from id3pm.config import UNetConfig
from id3pm.errors import CheckpointError, InvalidInputError
from id3pm.formats.images import area_reduce, to_chw
from id3pm.training.candidates import Candidate, attention_and_groups, others, told_timesteps
from id3pm.unet.model import UNet

ROUNDS = (8, 16, 32, 64)
"""Numbers of pictures on which two networks are compared: the more similar they are, the more pictures."""
Z_LIMIT, FIRST_Z_LIMIT = 3.0, 5.0
"""Mean difference, in standard errors, that decides; after the first few pictures it takes more."""
SAME_ERROR = 0.002
"""Relative difference of errors that counts as none: more pictures are not worth their time."""
DENOISES = 0.5
"""Mean squared error of the predicted noise above which a network does not denoise; 1 is no prediction."""
LOGSNR = (4.0, -8.0)
"""Range of noise levels: nearly clean to nearly noise."""
PASSES = 4
"""How often the best network so far may be replaced."""
SAME_OUTPUT, NEAR_OUTPUT = 1e-3, 3e-2
"""Relative error of an output computed in float32, and in half precision."""
INPUTS = ("x", "timesteps", "identity", "attributes", "low_res")
Progress = Callable[[Iterable[Candidate]], Iterable[Candidate]]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of a trial.

    Attributes:
        best: The network that fits best: the given one, unless another is clearly better.
        tried: Networks tried.
        error: Error of the best one: mean squared error of the predicted noise, or relative error of the stored output.
        given_error: The same of the given one.
        undecided: Networks that do not differ measurably from the best one.
        conclusive: Whether anything can be concluded: the best one denoises.
    """

    best: Candidate
    tried: int
    error: float
    given_error: float
    undecided: tuple[Candidate, ...] = ()
    conclusive: bool = True


def trial_size(config: UNetConfig) -> int:
    """Side of the pictures that a network is tried on: a super-resolution network at half its size, for speed."""
    half = config.image_size // 2
    fits = half % 2 ** (len(config.channel_mult) - 1) == 0 and (config.low_res_size or 1) % 2 == 0
    return half if config.low_res_size is not None and half >= 64 and fits else config.image_size


def try_on_pictures(
    weights: Mapping[str, NDArray[np.float32]], given: Candidate, pictures: NDArray[np.uint8], progress: Progress
) -> Verdict:
    """The best network for the weights among `id3pm.training.candidates.others`, step by step.

    Args:
        weights: Array by name.
        given: The network as it was described.
        pictures: uint8 [N, S, S, 3], S as `trial_size` says; the first 64 are used, fewer are used again.
        progress: Yields the candidates and shows progress.
    """
    trial = _Trial(weights, given, pictures)
    best, seen = given, [given]
    undecided: list[Candidate] = []
    for _ in range(PASSES):
        better, undecided = [], []
        for candidate in progress(others(best)):
            seen += [] if candidate in seen else [candidate]
            sign = trial.compare(candidate, best)
            if sign < 0:
                better.append(candidate)
            elif sign == 0:
                undecided.append(candidate)
        if not better:
            break
        best = min(better, key=trial.error)
    error = trial.error(best)
    return Verdict(best, len(seen) - 1, error, trial.error(given), tuple(undecided), conclusive=error < DENOISES)


class _Trial:
    """Errors of candidates on the same noisy pictures; each is computed once."""

    def __init__(
        self, weights: Mapping[str, NDArray[np.float32]], given: Candidate, pictures: NDArray[np.uint8]
    ) -> None:
        self._weights = {name: torch.from_numpy(array) for name, array in weights.items()}
        count = ROUNDS[-1]
        self._size = pictures.shape[1]
        rows = np.arange(count) % len(pictures)
        self._x0 = torch.from_numpy(to_chw(pictures[rows]))
        # Golden-section steps: the first few rows cover all noise levels, and so do any later ones.
        self._logsnr = LOGSNR[0] + (LOGSNR[1] - LOGSNR[0]) * (np.arange(count) * (math.sqrt(5) - 1) / 2 % 1)
        self._noise = torch.randn(self._x0.shape, generator=torch.Generator().manual_seed(0))
        self._low_res: Tensor | None = None
        if given.unet.low_res_size is not None:
            factor = given.unet.image_size // given.unet.low_res_size
            self._low_res = torch.from_numpy(to_chw(area_reduce(pictures[rows], factor)))
        self._errors: dict[Candidate, NDArray[np.float64]] = {}

    def compare(self, candidate: Candidate, best: Candidate) -> int:
        """-1 if the candidate is better, 1 if it is worse, 0 if all pictures do not decide."""
        for count in ROUNDS:
            ratios = np.log(self._first(candidate, count)) - np.log(self._first(best, count))
            spread = float(ratios.std(ddof=1)) / math.sqrt(count)
            z = float(ratios.mean()) / max(spread, 1e-12)
            if count > ROUNDS[0] and abs(float(ratios.mean())) + Z_LIMIT * spread < SAME_ERROR:
                return 0
            if abs(z) > (FIRST_Z_LIMIT if count == ROUNDS[0] else Z_LIMIT):
                return 1 if z > 0 else -1
        return 0

    def error(self, candidate: Candidate) -> float:
        """Mean squared error of the predicted noise over all pictures."""
        return float(self._first(candidate, ROUNDS[-1]).mean())

    def _first(self, candidate: Candidate, count: int) -> NDArray[np.float64]:
        known = self._errors.get(candidate, np.empty(0))
        if len(known) < count:
            network = _network(candidate.unet.at_size(self._size), self._weights)
            more = [self._rows(network, candidate, start) for start in range(len(known), count, ROUNDS[0])]
            known = self._errors[candidate] = np.concatenate([known, *more])
        return known[:count]

    @torch.inference_mode()
    def _rows(self, network: UNet, candidate: Candidate, start: int) -> NDArray[np.float64]:
        rows = slice(start, start + ROUNDS[0])
        share = torch.sigmoid(torch.from_numpy(self._logsnr[rows]).float()).view(-1, 1, 1, 1)  # alphas_cumprod
        noise = self._noise[rows]
        x_t = share.sqrt() * self._x0[rows] + (1.0 - share).sqrt() * noise
        t = torch.from_numpy(told_timesteps(candidate.diffusion, self._logsnr[rows])).float()
        low_res = None if self._low_res is None else self._low_res[rows]
        eps = network(x_t, t, low_res=low_res)[:, :3]
        errors: NDArray[np.float64] = ((eps - noise) ** 2).mean(dim=(1, 2, 3)).double().numpy()
        return np.nan_to_num(errors, nan=np.inf).clip(1e-12, 1e12)


def read_output(file: Path) -> dict[str, NDArray[np.float32]]:
    """A stored forward pass: `x`, `timesteps`, what else the network takes, and `output`, from an .npz file.

    Raises:
        InvalidInputError: It is not such a file, or has other arrays.
    """
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            found = {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
    except OSError as error:
        raise InvalidInputError(f"{file.name} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{file.name} is no .npz file of arrays: {error}") from error
    allowed = {*INPUTS, "output"}
    if not {"x", "timesteps", "output"} <= set(found) <= allowed:
        raise InvalidInputError(
            f"{file.name} has {', '.join(sorted(found))}: need x, timesteps and output, and what else the "
            f"network takes of {', '.join(INPUTS[2:])}"
        )
    return found


def compare_with_output(
    weights: Mapping[str, NDArray[np.float32]],
    given: Candidate,
    stored: Mapping[str, NDArray[np.float32]],
    progress: Progress,
) -> Verdict:
    """The network that gives a stored output; the noising process has no part in one forward pass.

    Args:
        weights: Array by name.
        given: The network as it was described.
        stored: See `read_output`.
        progress: See `try_on_pictures`.

    Raises:
        CheckpointError: No candidate gives the output.
    """
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    given_error = _output_error(given, tensors, stored)
    if given_error < SAME_OUTPUT:
        return Verdict(given, 0, given_error, given_error)
    errors = {given: given_error}
    for candidate in progress(attention_and_groups(given)):
        errors[candidate] = _output_error(candidate, tensors, stored)
    best = min(errors, key=errors.__getitem__)
    if errors[best] > NEAR_OUTPUT:
        raise CheckpointError(
            f"no network of these shapes gives the stored output: of {len(errors)} tried, the best is wrong by "
            f"{errors[best]:.1%}. Were output and weights stored by the same model, in evaluation mode?"
        )
    return Verdict(best, len(errors) - 1, errors[best], given_error)


@torch.inference_mode()
def _output_error(
    candidate: Candidate, weights: Mapping[str, Tensor], stored: Mapping[str, NDArray[np.float32]]
) -> float:
    network = _network(candidate.unet, weights)
    inputs = {name: torch.from_numpy(stored[name]) for name in INPUTS if name in stored}
    output = network(**inputs).numpy()
    if output.shape != stored["output"].shape:
        raise InvalidInputError(f"the stored output is {stored['output'].shape}: this network gives {output.shape}")
    error = np.linalg.norm(output - stored["output"]) / max(float(np.linalg.norm(stored["output"])), 1e-12)
    return float(np.nan_to_num(error, nan=np.inf))


def _network(config: UNetConfig, weights: Mapping[str, Tensor]) -> UNet:
    with torch.device("meta"):
        network = UNet(config)
    network.load_state_dict(dict(weights), assign=True)  # all candidates share one copy
    return network.eval()


def silent(candidates: Iterable[Candidate]) -> Iterable[Candidate]:
    """Shows no progress."""
    return candidates


def squares(photos: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """The middle squares of pictures [H, W, 3], uint8 [N, size, size, 3]."""
    found = []
    for photo in photos:
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        square = Image.fromarray(photo[top : top + side, left : left + side])
        found.append(np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)))
    return np.stack(found)
