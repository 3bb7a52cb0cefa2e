"""Options on the wire: as tensors or parameters, checked against one table."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from id3pm.attributes import encode
from id3pm.config import MAX_SEED, SamplingOptions
from id3pm.errors import InvalidInputError, InvalidOptionError
from id3pm.sampling.presets import PRESETS
from id3pm.serving.protocol.limits import MAX_TEXT, MAX_VECTOR
from id3pm.serving.protocol.options import parse_rows
from id3pm.serving.protocol.wire import (
    OPTIONS,
    Control,
    parse_control,
    shortest_float,
    strings,
)

DEFAULTS = SamplingOptions(sampler="ddim", steps=25, eta=0.5)
SEED = {"seed": np.array([[3]], dtype=np.int64)}


def one(stage: Any = "base", tensors: Any = None, parameters: Any = None, defaults: Any = DEFAULTS) -> Any:
    (row,) = parse_rows(stage, 1, {**SEED, **(tensors or {})}, parameters or {}, defaults)
    return row


def test_every_sampling_option_of_the_64_px_stage_can_be_sent() -> None:
    fields = {field.name for field in dataclasses.fields(SamplingOptions)} - {"consistency"}
    assert {option.field for option in OPTIONS if "base" in option.stages} - {None} == fields


def test_what_is_not_sent_keeps_the_default() -> None:
    assert one().options == DEFAULTS
    assert one(parameters={"steps": 7}).options == dataclasses.replace(DEFAULTS, steps=7)


def test_the_stages_have_their_own_names_for_the_same_field() -> None:
    parameters = {"steps": 7, "sr_steps": 9}
    assert one("base", parameters=parameters).options.steps == 7
    assert one("sr", parameters=parameters).options.steps == 9


def test_another_sampler_does_not_inherit_the_noise_of_ddim() -> None:
    assert one(parameters={"sampler": "ddpm"}).options.eta == 0.0
    with pytest.raises(InvalidOptionError, match=r"eta=0.5 with sampler='ddpm'"):
        one(parameters={"sampler": "ddpm", "eta": 0.5})


def test_an_error_uses_the_name_that_the_sender_used() -> None:
    with pytest.raises(InvalidOptionError, match=r"^sr_steps=0: must be between 1 and 1000$"):
        one("sr", parameters={"sr_steps": 0})
    with pytest.raises(InvalidOptionError, match=r"sr_eta=0.5 with sr_sampler='ddpm': sr_eta belongs to ddim"):
        one("sr", parameters={"sr_eta": 0.5}, defaults=SamplingOptions())


def test_a_bad_parameter_of_the_other_stage_fails_before_any_work() -> None:
    with pytest.raises(InvalidOptionError, match="sr_steps=-1"):
        one("base", parameters={"sr_steps": -1})


def test_a_bad_tensor_of_the_other_stage_fails_before_any_work() -> None:
    tensors = {"seed": np.array([[1], [2]]), "sr_steps": np.array([[4], [0]], dtype=np.int32)}
    with pytest.raises(InvalidOptionError, match=r"^row 1: sr_steps=0: must be between 1 and 1000$"):
        parse_rows("base", 2, tensors, {}, DEFAULTS)
    with pytest.raises(InvalidOptionError, match=r"sr_steps came as input \(4\) and as parameter \(5\)"):
        one("base", tensors={"sr_steps": np.array([[4]], dtype=np.int32)}, parameters={"sr_steps": 5})


def test_options_of_the_other_stage_change_nothing_here() -> None:
    assert one("base", tensors={"sr_steps": np.array([[4]], dtype=np.int32)}).options == DEFAULTS


def test_an_option_that_only_the_other_stage_can_judge_passes() -> None:
    one("base", parameters={"sr_eta": 0.5})  # right where the bundle's sr_sampler is ddim, which this stage cannot know


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("steps", True, "a whole number"),
        ("steps", 2.0, "a whole number"),
        ("steps", None, "a whole number"),
        ("steps", "1e3", "a whole number"),
        ("seed", 2**63, "between 0 and"),
        ("seed", -1, "between 0 and"),
        ("guidance_scale", "much", "a number"),
        ("guidance_scale", False, "a number"),
        ("guidance_scale", 1e39, "guidance_scale=inf"),
        ("sampler", 5, "text"),
        ("attributes", "[true]", "a JSON list of numbers"),
        ("attributes", "{}", "a JSON list of numbers"),
        ("attributes", 5, "a JSON list of numbers"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words) as caught:
        parse_rows("base", 1, {} if name == "seed" else SEED, {name: value}, DEFAULTS)
    assert str(caught.value).startswith(f"{name}=")


def test_the_model_of_the_vector_is_read_from_tensor_and_parameter() -> None:
    assert one(parameters={"id_vector_model": "sface"}).id_vector_model == "sface"
    assert one(tensors={"id_vector_model": np.array([[b"sface"]], dtype=object)}).id_vector_model == "sface"
    assert one().id_vector_model is None
    with pytest.raises(InvalidOptionError, match="id_vector_model='7': expected text"):
        one(parameters={"id_vector_model": 7})


def test_a_vector_can_come_as_json_text() -> None:
    assert one(parameters={"attributes": "[0.25, -1]"}).attributes.tolist() == [0.25, -1.0]


def test_unknown_names_are_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidOptionError, match=r"'guidance' is unknown: did you mean guidance_\w+\? valid are seed"):
        one(parameters={"guidance": 2})


@pytest.mark.parametrize("name", ["id", "timeout", "triton_enable_empty_final_response", "x-request-source"])
def test_what_triton_adds_is_ignored(name: str) -> None:
    assert one(parameters={name: "1"}).options == DEFAULTS


def test_the_same_value_twice_is_fine_and_two_values_are_not() -> None:
    tensor = {"guidance_scale": np.array([[2.3]], dtype=np.float32)}
    assert one(tensors=tensor, parameters={"guidance_scale": 2.3}).options.guidance_scale == 2.3
    with pytest.raises(InvalidOptionError, match=r"guidance_scale came as input \(2.3\) and as parameter \(2.4\)"):
        one(tensors=tensor, parameters={"guidance_scale": 2.4})


def test_rows_keep_their_own_values_and_errors_name_the_row() -> None:
    tensors = {"seed": np.array([[1], [2], [3]]), "steps": np.array([[5], [6], [7]], dtype=np.int32)}
    rows = parse_rows("base", 3, tensors, {}, DEFAULTS)
    assert [(row.seed, row.options.steps) for row in rows] == [(1, 5), (2, 6), (3, 7)]
    tensors["steps"][2] = 0
    with pytest.raises(InvalidOptionError, match=r"^row 2: steps=0"):
        parse_rows("base", 3, tensors, {}, DEFAULTS)


def test_a_tensor_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match=r"steps has shape \[1, 2\]: expected \[1, 1\]"):
        one(tensors={"steps": np.ones((1, 2), dtype=np.int32)})


@given(st.integers(0, MAX_SEED))
def test_every_seed_arrives_as_it_was_sent(seed: int) -> None:
    (row,) = parse_rows("sr", 1, {"seed": np.array([[seed]], dtype=np.int64)}, {"seed": str(seed)}, DEFAULTS)
    assert row.seed == seed


@given(st.floats(width=32, allow_nan=False))
def test_the_shortest_decimal_is_the_same_float32(value: float) -> None:
    assert np.float32(shortest_float(value)) == np.float32(value)


@given(st.integers(-999_999, 999_999), st.integers(0, 6))
def test_decimals_of_six_digits_survive_fp32(digits: int, places: int) -> None:
    value = digits / 10**places
    assert shortest_float(np.float32(value)) == value


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([["ping", ""], ["ping", ""]], "one row"),
        ([[]], "one row"),
        ([["stop", ""]], "'stop': choose one of ping, describe, drain, cancel, progress, watch"),
        ([["progress", ""]], "needs the request id"),
        ([["cancel"]], "needs the request id"),
        ([["cancel", "a", "b"]], "takes 1 to 1 strings behind it, not 2"),
        ([["watch", "a"]], "takes 2 to 3 strings behind it, not 1"),
        ([["watch", "a", "1.5"]], "after step '1.5': send a whole number from -1 up"),
        ([["watch", "a", "-2"]], "after step '-2'"),
        ([["watch", "a", "1", "yes"]], "preview 'yes': send 1 or 0"),
        ([[b"\xff", ""]], "UTF-8"),
    ],
)
def test_control_requests_are_checked(sent: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        parse_control(np.array(sent, dtype=object))


def test_control_requests_are_read() -> None:
    def read(*words: str) -> Control:
        return parse_control(np.array([words], dtype=object))

    assert read("ping") == read("ping", "") == Control("ping")
    assert read("cancel", "a") == Control("cancel", "a")
    assert read("watch", "a", "-1") == Control("watch", "a", -1, True)
    assert read("watch", "a", "7", "0") == Control("watch", "a", 7, False)


def test_a_preset_sets_both_stages_and_a_value_beside_it_wins() -> None:
    for stage, preset in (("base", PRESETS["balanced"].base), ("sr", PRESETS["balanced"].sr)):
        assert one(stage, parameters={"preset": "balanced"}).options == preset
    assert one("base", parameters={"preset": "paper", "steps": 9}).options == dataclasses.replace(
        PRESETS["paper"].base, steps=9
    )
    for stage in ("base", "sr"):
        with pytest.raises(InvalidOptionError, match="preset='best': choose one of paper, balanced, fast"):
            one(stage, parameters={"preset": "best"})


@pytest.mark.parametrize("sent", ['{"yaw": -20, "smile": 0.5}', "yaw=-20, smile=0.5"])
@pytest.mark.parametrize("way", ["tensor", "parameter"])
def test_attributes_by_name_become_the_vector_of_the_bundles_set(sent: str, way: str) -> None:
    tensors = {**SEED, **({"attribute_values": strings([sent])} if way == "tensor" else {})}
    parameters = {"attribute_values": sent} if way == "parameter" else {}
    (row,) = parse_rows("base", 1, tensors, parameters, DEFAULTS, "landmarks")
    np.testing.assert_array_equal(row.attributes, encode({"yaw": -20, "smile": 0.5}, "landmarks"))


def test_every_row_has_its_own_attributes_by_name() -> None:
    tensors = {"seed": np.array([[1], [2]]), "attribute_values": strings(["emotion=happy", "emotion=sad"])}
    first, second = parse_rows("base", 2, tensors, {}, DEFAULTS, 1)
    np.testing.assert_array_equal(first.attributes, encode({"happiness": 1}, 1))
    np.testing.assert_array_equal(second.attributes, encode({"sadness": 1}, 1))


@pytest.mark.parametrize(
    ("parameters", "attribute_set", "message"),
    [
        ({"attribute_values": "yaw=-50"}, "landmarks", r"yaw=-50.0: must be a number from -35 to 35 degrees"),
        ({"attribute_values": "yow=-5"}, "landmarks", "has no yow: did you mean yaw?.* it has roll, yaw, pitch"),
        ({"attribute_values": "left"}, "landmarks", "give JSON, or pairs such as yaw=-20,smile=0.8"),
        ({"attribute_values": "yaw=1,yaw=2"}, "landmarks", "a name is repeated"),
        ({"attribute_values": '{"yaw": 1, "yaw": 2}'}, "landmarks", "a name is repeated"),
        ({"attribute_values": '{"yaw": [1]}'}, "landmarks", r"yaw=\[1\]: must be a number"),
        ({"attribute_values": '{"yaw": NaN}'}, "landmarks", "yaw=nan: must be a number"),
        ({"attribute_values": "{yaw: 1}"}, "landmarks", "not JSON"),
        ({"attribute_values": "yaw=1"}, None, "this bundle takes no attributes"),
        ({"attribute_values": "yaw=1", "attributes": "[1]"}, "landmarks", "both given: send one or the other"),
        ({"attribute_values": 3}, "landmarks", "expected text"),
    ],
)
def test_attributes_that_break_a_rule_are_refused_with_field_and_range(
    parameters: dict[str, Any], attribute_set: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_rows("base", 1, SEED, parameters, DEFAULTS, attribute_set)


@pytest.mark.parametrize("length", [MAX_VECTOR + 1, 2**24])
def test_a_long_vector_is_refused_before_its_numbers_are_read(length: int) -> None:
    began = time.monotonic()
    with pytest.raises(
        InvalidOptionError, match=rf"^attributes has {length} numbers: at most {MAX_VECTOR} are allowed"
    ):
        one(tensors={"attributes": np.zeros((1, length), np.float32)})
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("name", [option.name for option in OPTIONS if option.dtype == "STRING"])
def test_a_long_text_is_refused_before_it_is_read(name: str) -> None:
    for length in (MAX_TEXT + 1, 2**26):
        with pytest.raises(InvalidInputError, match=rf"^{name} has a text of {length} bytes: at most {MAX_TEXT}"):
            one(tensors={name: np.array([[b"\xff" * length]], dtype=object)})
        with pytest.raises(InvalidInputError, match=rf"^{name} has {length} characters: at most {MAX_TEXT}"):
            one(parameters={name: "[" * length})


def test_a_long_vector_as_text_is_refused_before_it_is_read() -> None:
    for sent, words in (("[" * 2**24, "attributes has 16777216 characters: at most"), ("[" * 10_000, "a JSON list")):
        with pytest.raises(InvalidOptionError, match=words):
            one(parameters={"attributes": sent})
    sent = f"[{'0,' * MAX_VECTOR}0]"
    with pytest.raises(InvalidOptionError, match=f"attributes has {MAX_VECTOR + 1} numbers: at most {MAX_VECTOR}"):
        one(parameters={"attributes": sent})


def test_long_control_requests_are_refused_before_they_are_read() -> None:
    with pytest.raises(InvalidInputError, match="control has 1000000 strings: at most 4 are allowed"):
        parse_control(np.full((1, 1_000_000), b"\xff", dtype=object))
    with pytest.raises(InvalidInputError, match=rf"control has a text of 67108864 bytes: at most {MAX_TEXT}"):
        parse_control(np.array([["cancel", b"\xff" * 2**26]], dtype=object))
