"""An optional loss that the paper does not have: the identity of images that the network itself is generating.

Denoising teaches with noised photographs, in which part of the answer is given; a sampler starts from noise and sees
its own images alone. Here some rows of every step are images on their way through the sampler: the predicted image of
each sampling step is compared with the ID vector, and the next optimiser step goes on from there. No image of the
person is needed, so the ID vectors may be ones that no training image has.

Xu et al., "ImageReward", NeurIPS 2023, algorithm 1 (ReFL), and Clark et al., "Directly Fine-Tuning Diffusion Models on
Differentiable Rewards", ICLR 2024, teach text-to-image networks in this way. Here every sampling step gives a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.coefficients import RowCoefficients
from id3pm.diffusion.plans import plan
from id3pm.diffusion.samplers import update
from id3pm.diffusion.start import first_input
from id3pm.face.stage import FaceStage
from id3pm.training.batch import RolloutDraws
from id3pm.training.identity_loss import IdentityLoss, crop_to_image
from id3pm.unet.model import NULL_IDENTITY

SAMPLING = SamplingOptions(sampler="ddim", eta=1.0, steps=10, spacing="logsnr", guidance_scale=2.0)
"""How the rows are sampled: as a request of few steps is."""
TAUGHT_SHARES = (0.05, 0.97)
"""Of the image in the noisy image. Steps before are sampled without a loss: the predicted image is a blur in which no
face is found. At steps after, it is nearly given: the row has arrived."""
NOT_BEGUN = -1
Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class Rollouts:
    """Images on their way from noise to a face. A row begins anew, with another person, when it has arrived.

    Args:
        identity_loss: Embeds the predicted images.
        stage: Finds the faces in them.
        diffusion: The noising process.
        learn_sigma: The network has variance channels.
        centring: Share of the loss that compares vectors after the data set's mean is subtracted from both. A cosine
            of whole vectors also rises as an image comes nearer to what all faces share, which is no likeness.
    """

    def __init__(
        self,
        identity_loss: IdentityLoss,
        stage: FaceStage,
        diffusion: DiffusionConfig,
        *,
        learn_sigma: bool,
        centring: float = 0.0,
    ) -> None:
        self._identity_loss = identity_loss
        self._stage = stage
        self._centring = centring
        self._plan = plan(diffusion, SAMPLING, learn_sigma)
        shares = 1.0 / self._plan.x0_from_x**2
        taught = np.flatnonzero((shares >= TAUGHT_SHARES[0]) & (shares <= TAUGHT_SHARES[1]))
        self._first, self._last = int(taught[0]), int(taught[-1])
        self._places = np.zeros(0, np.int64)  # the sampling step that comes next, per row
        self._state: dict[str, Tensor] = {}  # images, vectors, alignments

    def state_dict(self) -> dict[str, Tensor]:
        """What the next step needs: it follows from the weights of earlier steps, which no longer exist."""
        return {"places": torch.from_numpy(self._places), **self._state}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from `state_dict`."""
        self._places = state["places"].cpu().numpy().copy()
        self._state = {name: tensor for name, tensor in state.items() if name != "places"}

    def begin(self, draws: RolloutDraws, step: int, network: Network) -> None:
        """Starts the next rows, one after the other, so that every step sees all sampling steps.

        Args:
            draws: The random numbers and people of this optimiser step, for all rows.
            step: Number of the optimiser step.
            network: (images, time steps, ID vectors) -> output, without gradient.
        """
        count, cycle = len(draws.vectors), self._last - self._first + 1
        if not self._state:
            self._places = np.full(count, NOT_BEGUN)
            self._state = {
                "images": torch.zeros_like(draws.noise),
                "vectors": torch.zeros_like(draws.vectors),
                "alignments": torch.zeros_like(draws.alignments),
            }
        new = np.flatnonzero([(step - draws.turn(row, cycle)) % cycle == 0 for row in range(count)])
        if len(new) == 0:
            return
        vectors, images = draws.vectors[new], first_input(draws.start[0][new], self._plan.start, None)
        for place in range(self._first):
            rows = self._coefficients(np.full(len(new), place))
            timestep = torch.from_numpy(rows.timestep).to(images)
            both = [network(images, timestep, given) for given in (vectors, torch.full_like(vectors, NULL_IDENTITY))]
            images, _ = update(images, both[0], rows, unconditional=both[1], noise=draws.start[place + 1][new])
        self._places[new] = self._first
        for name, values in (("images", images), ("vectors", vectors), ("alignments", draws.alignments[new])):
            self._state[name][new] = values

    @property
    def active(self) -> NDArray[np.intp]:
        """The rows under way; in the first steps of a run not all of them."""
        return np.flatnonzero(self._places != NOT_BEGUN)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the network is given for the active rows: images, time steps, ID vectors."""
        images = self._state["images"][self.active]
        timestep = torch.from_numpy(self._coefficients(self._places[self.active]).timestep).to(images)
        return images, timestep, self._state["vectors"][self.active]

    def advance(self, output: Tensor, unconditional: Tensor, draws: RolloutDraws) -> Tensor:
        """The loss of all rows, [R], 0 for those not under way, with a gradient to `output`; and one sampling step.

        Args:
            output: The network's output for `inputs`, float32 [A, 3 or 6, S, S].
            unconditional: The same with the null vector; without gradient.
            draws: As for `begin`.
        """
        active = self.active
        rows = self._coefficients(self._places[active])
        x = self._state["images"][active]
        a = torch.from_numpy(rows.x0_from_x).to(x)
        b = torch.from_numpy(rows.x0_from_output).to(x)
        eps, eps_uncond = output[:, : x.shape[1]], unconditional[:, : x.shape[1]]
        guided = eps_uncond + SAMPLING.guidance_scale * (eps - eps_uncond)
        predicted = (a.view(-1, 1, 1, 1) * x - b.view(-1, 1, 1, 1) * guided).clamp(-1.0, 1.0)
        loss = self._loss(predicted, 1.0 / a**2, active, draws)
        with torch.no_grad():
            images, _ = update(
                x, output.detach(), rows, unconditional=unconditional, noise=draws.noise[active][rows.noise_rows]
            )
        everything = output.new_zeros(len(self._places)).index_add(0, torch.from_numpy(active).to(output.device), loss)
        self._state["images"][active] = images
        self._places[active] += 1
        self._places[self._places > self._last] = NOT_BEGUN
        return everything

    def _loss(self, predicted: Tensor, share: Tensor, active: NDArray[np.intp], draws: RolloutDraws) -> Tensor:
        """(1 - cosine similarity) sqrt(share): its gradient to eps is then as large at every time step."""
        if len(predicted) == 0:
            return predicted.sum(dim=(1, 2, 3))
        alignments = found_alignments(self._stage, predicted, self._state["alignments"][active])
        moved = alignments[:, :, :2] @ draws.jitter[active]
        moved[:, :, 2] += alignments[:, :, 2]
        vectors = self._identity_loss.embed(predicted, moved)
        wanted = self._state["vectors"][active]
        whole = torch.cosine_similarity(vectors, wanted, dim=1)
        centred = torch.cosine_similarity(vectors - draws.mean, wanted - draws.mean, dim=1)
        return (1.0 - torch.lerp(whole, centred, self._centring)) * share.sqrt()

    def _coefficients(self, places: NDArray[np.int64]) -> RowCoefficients:
        return self._plan.at(places)


def found_alignments(stage: FaceStage, images: Tensor, known: Tensor) -> Tensor:
    """Where the faces in images are: found by the detector, else where they are known to be.

    Args:
        stage: Finds the faces.
        images: float32 [N, 3, S, S] in [-1, 1].
        known: float32 [N, 2, 3] of `crop_to_image`.
    """
    alignments = known.clone()
    pixels = ((images.detach() + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    for row, faces in enumerate(stage.detect(np.ascontiguousarray(pixels))):
        if len(faces):
            face = faces[np.argmax(faces[:, 2] * faces[:, 3])]
            points = face[4:14].reshape(1, 5, 2).astype(np.float64)
            alignments[row] = torch.from_numpy(crop_to_image(points))[0].to(alignments)
    return alignments
