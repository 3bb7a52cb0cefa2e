"""Promises of id3pm.attributes: sets, encoding, decoding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from id3pm.attributes import (
    ATTRIBUTE_SETS,
    EMOTION_WORDS,
    EMOTIONS,
    FIELDS,
    NULL_VALUE,
    decode,
    describe_fields,
    encode,
    mirrored,
    null_vector,
    parse_set,
    parse_values,
)
from id3pm.errors import InvalidInputError
from id3pm.formats.bundle import ATTRIBUTE_DIMS


def test_groups_have_the_sizes_of_table_6():
    sizes = {group: sum(field.group == group for field in FIELDS) for group in {field.group for field in FIELDS}}
    assert sizes == {
        "age": 1,
        "emotion": 8,
        "facial hair": 3,
        "hair": 8,
        "head pose": 3,
        "gender": 1,
        "glasses": 1,
        "makeup": 2,
        "occlusions": 3,
    }


def test_sets_have_the_groups_and_lengths_of_table_6():
    groups = {number: {field.group for field in ATTRIBUTE_SETS[number]} for number in (1, 2, 3)}
    assert groups[1] == {"emotion", "head pose"}
    assert groups[2] == groups[1] | {"glasses", "makeup", "occlusions"}
    assert groups[3] == groups[2] | {"age", "facial hair", "hair", "gender"}
    assert {number: len(ATTRIBUTE_SETS[number]) for number in (1, 2, 3)} == {1: 11, 2: 17, 3: 30}


def test_field_names_are_unique():
    assert len({field.name for field in FIELDS}) == len(FIELDS)


@given(st.sampled_from([name for name in EMOTIONS if name != "neutral"]), st.floats(0, 1))
def test_what_emotions_lack_is_neutral(name, strength):
    emotions = dict(zip(EMOTIONS, encode({name: strength}, 1), strict=False))
    assert emotions[name] == pytest.approx(strength)
    assert emotions["neutral"] == pytest.approx(1 - strength)


@pytest.mark.parametrize("word", EMOTION_WORDS)
def test_an_emotion_word_is_that_emotion_alone(word):
    emotions = dict(zip(EMOTIONS, encode({"emotion": word}, 1), strict=False))
    assert emotions == {name: float(name == EMOTION_WORDS[word]) for name in EMOTIONS}


def test_emotions_mix_and_their_rest_is_neutral():
    mixed = decode(encode({"emotion": {"sad": 0.25, "happy": 0.5}}, 1), 1)
    assert {name: mixed[name] for name in ("sadness", "happiness", "neutral")} == pytest.approx(
        {"sadness": 0.25, "happiness": 0.5, "neutral": 0.25}
    )


def test_what_is_not_given_is_unspecified_where_fields_are_free_and_zero_where_not():
    free = encode({"yaw": -35, "smile": 0.8, "brows": None}, "landmarks")
    assert decode(free, "landmarks") == pytest.approx({"yaw": -35.0, "smile": 0.8})
    assert np.count_nonzero(free == -1) == 5
    assert decode(encode({"yaw": -45}, 1), 1)["pitch"] == 0.0
    np.testing.assert_array_equal(encode({}, "landmarks"), null_vector("landmarks"))


def test_a_value_at_the_end_of_a_free_range_is_not_taken_for_unspecified():
    lowest = {field.name: field.low for field in ATTRIBUTE_SETS["landmarks"]}
    assert decode(encode(lowest, "landmarks"), "landmarks") == pytest.approx(lowest)


@pytest.mark.parametrize("attribute_set", [1, 2, "landmarks"])
def test_a_mirrored_picture_turns_and_tilts_the_other_way(attribute_set):
    vectors = np.stack([encode({"yaw": -20, "roll": 5, "pitch": 8}, attribute_set), null_vector(attribute_set)])
    given, nothing = mirrored(vectors, attribute_set)
    assert decode(given, attribute_set) == pytest.approx(
        {**decode(vectors[0], attribute_set), "yaw": 20.0, "roll": -5.0}, abs=1e-4
    )
    np.testing.assert_array_equal(nothing, vectors[1])
    np.testing.assert_allclose(mirrored(mirrored(vectors, attribute_set), attribute_set), vectors, atol=1e-6)


def test_an_unspecified_yaw_stays_so_in_the_mirror():
    vector = encode({"roll": 5}, "landmarks")
    assert decode(mirrored(vector, "landmarks"), "landmarks") == pytest.approx({"roll": -5.0}, abs=1e-4)


def test_fields_are_described_for_clients():
    assert describe_fields(None) == []
    yaw = next(field for field in describe_fields("landmarks") if field["name"] == "yaw")
    assert yaw == {
        "name": "yaw", "group": "head pose", "low": -35.0, "high": 35.0, "unit": "degrees", "default": None,
        "free": True, "needed": False,
    }  # fmt: skip
    defaults = {field["name"]: field["default"] for field in describe_fields(3)}
    # What the description calls the default, needed or free is what encoding makes of it.
    needed = {name: 1 for name, default in defaults.items() if default is None} | {"bald": 1}
    plain = decode(encode(needed, 3), 3)
    assert all(plain[name] == default for name, default in defaults.items() if name not in needed)


@pytest.mark.parametrize("attribute_set", ATTRIBUTE_SETS)
def test_what_the_description_calls_free_or_needed_is_what_encoding_makes_of_it(attribute_set):
    fields = describe_fields(attribute_set)
    needed = {}  # the last of each group is enough
    for field in fields:
        if field["needed"]:
            needed[field["group"]] = field["name"]
    given = {"yaw": -20, **dict.fromkeys(needed.values(), 1)}
    vector = encode(given, attribute_set)
    for field, number in zip(fields, vector, strict=True):
        assert (number == NULL_VALUE) == (field["free"] and field["name"] not in given)
    for name in needed.values():
        with pytest.raises(InvalidInputError, match=f"attribute set {attribute_set} needs .*{name}"):
            encode({key: value for key, value in given.items() if key != name}, attribute_set)
    assert (attribute_set == 3) == bool(needed)


@pytest.mark.parametrize(("text", "expected"), [("2", 2), ("landmarks", "landmarks")])
def test_a_command_line_names_a_set(text, expected):
    assert parse_set(text) == expected


@pytest.mark.parametrize("text", ["4", "ours", "-1", ""])
def test_a_command_line_that_names_no_set_is_refused(text):
    with pytest.raises(InvalidInputError, match="choose one of 1, 2, 3, landmarks"):
        parse_set(text)


@pytest.mark.parametrize("vector", [np.zeros(6), np.zeros((1, 7))])
def test_a_vector_of_another_length_is_refused(vector):
    with pytest.raises(InvalidInputError, match="landmarks has 7 numbers"):
        decode(vector, "landmarks")


@pytest.mark.parametrize(
    ("values", "attribute_set", "message"),
    [
        ({"glasses": 1}, 1, "set 1 has no glasses: it has anger"),
        ({"happines": 1}, 1, "has no happines: did you mean happiness"),
        ({"happiness": 0.8, "sadness": 0.8}, 1, "emotions sum to 1.6"),
        ({"yaw": 91}, 1, "yaw=91: must be a number from -90 to 90"),
        ({"yaw": "left"}, 1, "yaw='left'"),
        ({"gender": "male", "brown_hair": 1}, 3, "needs age"),
        ({"age": 20, "brown_hair": 1}, 3, "needs gender"),
        ({"age": 20, "gender": 1}, 3, "needs bald or hair_invisible or brown_hair"),
        ({"emotion": "hapy"}, 1, "emotion='hapy': choose one of angry"),
        ({"emotion": "happy", "sadness": 0.2}, 1, "emotion and sadness are both given"),
        ({"emotion": {"happy": 0.5, "happiness": 0.5}}, 1, "names happiness twice"),
        ({"emotion": {"happy": 1, "neutral": 1}}, 1, r"emotions sum to 2 \(happiness=1, neutral=1\): at most 1"),
        ({"anger": 0.5, "neutral": 0.6}, 2, "emotions sum to 1.1"),
        ({"emotion": 1}, 1, "emotion=1: give a word"),
        ({"emotion": "happy"}, "landmarks", "set landmarks has no emotion"),
        ({"yaw": 36}, "landmarks", "yaw=36: must be a number from -35 to 35 degrees"),
        ({}, 4, "attribute_set=4: choose one of 1, 2, 3, landmarks"),
    ],
)
def test_bad_friendly_values_are_refused_with_field_and_rule(values, attribute_set, message):
    with pytest.raises(InvalidInputError, match=message):
        encode(values, attribute_set)


@pytest.mark.parametrize(
    "text", ['{"yaw": 1, "pitch": 2, "yaw": 3}', "yaw=1,pitch=2,yaw=3", '{"emotion": {"yaw": 1, "yaw": 0}}']
)
def test_a_repeated_name_is_named_and_not_called_bad_json(text):
    with pytest.raises(InvalidInputError, match=r"^attributes: a name is repeated: yaw$"):
        parse_values(text)
    with pytest.raises(InvalidInputError, match="not JSON"):
        parse_values('{"yaw": 1')


@pytest.mark.parametrize("attribute_set", ATTRIBUTE_SETS)
def test_null_vector_is_minus_one_and_unlike_any_valid_vector(attribute_set):
    null = null_vector(attribute_set)
    assert null.dtype == np.float32
    np.testing.assert_array_equal(null, np.full(ATTRIBUTE_DIMS[attribute_set], -1))
    # The lowest valid value of every field: no vector of valid values is all -1.
    lowest = np.array([(field.low - field.offset) / field.scale for field in ATTRIBUTE_SETS[attribute_set]])
    assert (lowest > -1).any()
