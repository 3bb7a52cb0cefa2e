from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tiny_engines

from id3pm.config import SamplingOptions
from id3pm.errors import InvalidInputError, InvalidOptionError
from id3pm.sampling.request import SampleRequest, validated

GOOD = SampleRequest(id="a", seed=1, options=SamplingOptions(), identity=np.ones(8, np.float32))


def changed(**changes: Any) -> SampleRequest:
    return dataclasses.replace(GOOD, **changes)


def test_good_request_is_copied() -> None:
    identity = np.arange(8, dtype=np.float64)
    request = validated(changed(identity=identity), tiny_engines.BASE)
    assert request.identity is not None and request.identity.dtype == np.float32
    identity[:] = 0
    np.testing.assert_array_equal(request.identity, np.arange(8))


def test_identity_is_never_normalised_and_may_be_zero() -> None:
    for scale in (0.0, 17.0):
        request = validated(changed(identity=np.full(8, scale)), tiny_engines.BASE)
        assert request.identity is not None and (request.identity == scale).all()


def test_unspecified_attributes_become_the_null_vector() -> None:
    request = validated(GOOD, tiny_engines.BASE)
    np.testing.assert_array_equal(request.attributes, -np.ones(11))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": None}, "identity: missing"),
        ({"identity": np.ones(7)}, r"identity has shape \[7\]; this model takes \[8\]"),
        ({"identity": np.ones((1, 8))}, r"identity has shape \[1, 8\]"),
        ({"identity": np.array([1.0] * 7 + [np.nan])}, "identity has values that are not finite"),
        ({"identity": np.full(8, 1e39)}, "identity has values that are not finite"),
        ({"identity": ["a"] * 8}, "identity: expected numbers"),
        ({"attributes": np.ones(3)}, r"attributes has shape \[3\]; this model takes \[11\]"),
        ({"low_res": np.ones((3, 16, 16))}, "low_res: this model takes none"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
        ({"seed": 1.5}, "seed=1.5"),
    ],
)
def test_bad_request_is_refused_with_the_rule(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        validated(changed(**changes), tiny_engines.BASE)


def test_super_resolution_takes_an_image_and_no_guidance() -> None:
    request = changed(identity=None, options=tiny_engines.SR_SAMPLING, low_res=np.zeros((3, 16, 16)))
    validated(request, tiny_engines.SR)
    with pytest.raises(InvalidInputError, match=r"low_res has shape \[16, 16, 3\]"):
        validated(dataclasses.replace(request, low_res=np.zeros((16, 16, 3))), tiny_engines.SR)
    with pytest.raises(InvalidInputError, match="identity: this model takes none"):
        validated(dataclasses.replace(request, identity=np.ones(8)), tiny_engines.SR)
    with pytest.raises(InvalidOptionError, match="no condition to guide"):
        validated(dataclasses.replace(request, options=SamplingOptions()), tiny_engines.SR)


def test_the_64_px_stage_has_nothing_to_be_consistent_with() -> None:
    with pytest.raises(InvalidOptionError, match=r"consistency=0\.5: belongs to super-resolution"):
        validated(changed(options=SamplingOptions(consistency=0.5)), tiny_engines.BASE)


def test_a_checked_request_is_not_checked_again_but_a_changed_copy_is() -> None:
    once = validated(GOOD, tiny_engines.BASE)
    assert validated(once, tiny_engines.BASE) is once
    with pytest.raises(InvalidInputError, match="identity has values that are not finite"):
        validated(dataclasses.replace(once, identity=np.full(8, np.nan)), tiny_engines.BASE)
    other = dataclasses.replace(tiny_engines.BASE, identity_dim=9)
    with pytest.raises(InvalidInputError, match=r"identity has shape \[8\]; this model takes \[9\]"):
        validated(once, other)
    with pytest.raises(InvalidInputError, match="L2 norm"):
        validated(once, tiny_engines.BASE, unit_vectors=True)
    assert once.identity is not None and not once.identity.flags.writeable
