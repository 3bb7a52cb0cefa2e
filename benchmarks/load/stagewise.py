"""The client's images without the ensemble: its wire calls `denoiser_64`, then `super_resolution`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from id3pm_client import ClientError
from id3pm_client._contract import DENOISER_64, ID3PM, MODELS, SUPER_RESOLUTION
from id3pm_client._grpc import GrpcTransport
from id3pm_client._request import Call
from id3pm_client._transport import Outcome

HANDED_ON = ("image_64", "receipt_64")


class Stagewise(GrpcTransport):
    """A transport of `Client`: two calls for each call to the ensemble; it hands the small image on itself."""

    def submit(self, call: Call, timeout_s: float, on_done: Callable[[Outcome], None]) -> Callable[[], None]:
        """As `GrpcTransport.submit`; what it returns gives up the first of the two calls alone."""
        if call.model != ID3PM:
            return super().submit(call, timeout_s, on_done)
        send = super().submit

        def upsample(outcome: Outcome) -> None:
            if isinstance(outcome, ClientError):
                on_done(outcome)
                return
            own = {name: array for name, array in call.inputs.items() if name in MODELS[SUPER_RESOLUTION].inputs}
            made = {name: outcome[name] for name in HANDED_ON}
            second = dataclasses.replace(
                call, model=SUPER_RESOLUTION, inputs={**own, **made}, outputs=("image", "receipt")
            )
            send(second, timeout_s, lambda answer: on_done(_with_64(answer, outcome)))

        return send(dataclasses.replace(call, model=DENOISER_64, outputs=HANDED_ON), timeout_s, upsample)


def _with_64(answer: Outcome, first: Outcome) -> Outcome:
    """The tensors that the ensemble answers with."""
    if isinstance(answer, ClientError) or isinstance(first, ClientError):
        return answer
    return {**answer, "image_64": first["image_64"]}
