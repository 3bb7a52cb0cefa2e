"""`id3pm baseline verification`: the older methods beside ID3PM in the table of verification, as in the main paper."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence

import click
import numpy as np
from numpy.typing import NDArray

from id3pm.command_options import option, takes
from id3pm.evaluation.baselines import methods
from id3pm.evaluation.baselines.black_box import Search
from id3pm.evaluation.baselines.compare_options import METHODS, BankOptions, MethodName, SearchOptions, WeightsOptions
from id3pm.evaluation.baselines.study import Made, Maker
from id3pm.evaluation.options import guidance_scales
from id3pm.evaluation.verification.command import VerificationOptions, verify_sets
from id3pm.evaluation.verification.fr_models import FaceEngineModel

CHUNK = 16  # images between two reports of progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineVerificationOptions(VerificationOptions, SearchOptions, BankOptions, WeightsOptions):
    """The options of `id3pm baseline verification`."""

    methods: tuple[MethodName, ...] = option(
        "--method",
        type=click.Choice(METHODS),
        multiple=True,
        default=("nbnet",),
        help="A row for an older method; repeatable. Searches ask --queries for each picture.",
    )
    guidance: tuple[float, ...] = option(
        callback=guidance_scales, default="2", help="Guidance scales of ID3PM; empty: real images and older methods."
    )

    def older(self, training: FaceEngineModel, notes: list[str]) -> list[OlderMethod]:
        """The methods that were asked for.

        Args:
            training: The FR model whose ID vectors are inverted.
            notes: Gets how the methods differ from what was published.

        Raises:
            InvalidInputError: Weights are missing, or of another FR model.
            CheckpointError: They are damaged.
        """
        return [self._older(name, training, notes) for name in dict.fromkeys(self.methods)]

    def _older(self, name: MethodName, training: FaceEngineModel, notes: list[str]) -> OlderMethod:
        cache = self.cache()
        maker = Maker(training, cache, self.queries)
        if name in ("nbnet", "vec2face"):
            network = methods.open_network(name, self.weights, training.name, notes)
            return OlderMethod(network.name, False, functools.partial(maker.direct, network, seeds=1))
        search: Search
        if name == "gaussian":
            search = methods.open_gaussian(notes, authors_code=self.authors_code)
        else:
            search = methods.open_gan_search(
                training, cache, self.bank, self.generator, authors_code=self.authors_code, threads=self.threads
            )
        label = f"{search.name}, {self.queries} queries"
        return OlderMethod(label, search.aligned, functools.partial(maker.search, search, seeds=1))


@dataclasses.dataclass(frozen=True)
class OlderMethod:
    """One method; see `id3pm.evaluation.verification.study.OtherMethod`.

    Attributes:
        label: Of its row.
        aligned: Its images are crops of 112 px.
        make: Makes one image of each of the ID vectors [N, D].
    """

    label: str
    aligned: bool
    make: Callable[[NDArray[np.float32]], Made]

    def chunks(
        self, vectors: NDArray[np.float32], seeds: Sequence[int]
    ) -> Iterator[tuple[NDArray[np.uint8], dict[str, str]]]:
        """Images uint8 [n, H, W, 3] of ID vectors [N, D], and a key for what is made of them.

        Args:
            vectors: The ID vectors.
            seeds: Not used: every search begins with the same seed, as in the paper's interpolations.
        """
        for start in range(0, len(vectors), CHUNK):
            made = self.make(vectors[start : start + CHUNK])
            images = np.stack([of_vector[0] for of_vector in made.images])
            yield images, {"pictures": hashlib.sha256(images.tobytes()).hexdigest()}


@click.command("verification")
@takes(BaselineVerificationOptions)
def verification_command(options: BaselineVerificationOptions) -> None:
    """Do FR models take what older methods make for the person? id3pm evaluate verification with rows for them.

    verification.json and verification.md in --out, written anew after each row. What has been made is kept in --out and
    not made again.
    """
    verify_sets(options, options.older)
