"""Promises of id3pm.attributes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from id3pm.attributes import ATTRIBUTE_SETS, EMOTIONS, FIELDS, HAIR_COLORS, encode, encode_ffhq, null_vector
from id3pm.bundle import ATTRIBUTE_DIMS
from id3pm.errors import InvalidInputError

# The form of https://github.com/DCGM/ffhq-features-dataset: one list of faces per image.
FFHQ = [
    {
        "faceId": "0",
        "faceRectangle": {"top": 100, "left": 120, "width": 300, "height": 300},
        "faceAttributes": {
            "smile": 0.9,
            "headPose": {"pitch": -9.0, "roll": 4.5, "yaw": -22.5},
            "gender": "female",
            "age": 27.0,
            "facialHair": {"moustache": 0.0, "beard": 0.1, "sideburns": 0.2},
            "glasses": "ReadingGlasses",
            "emotion": {
                "anger": 0.0,
                "contempt": 0.001,
                "disgust": 0.002,
                "fear": 0.003,
                "happiness": 0.9,
                "neutral": 0.09,
                "sadness": 0.004,
                "surprise": 0.0,
            },
            "blur": {"blurLevel": "low", "value": 0.06},
            "exposure": {"exposureLevel": "goodExposure", "value": 0.67},
            "noise": {"noiseLevel": "low", "value": 0},
            "makeup": {"eyeMakeup": True, "lipMakeup": False},
            "accessories": [],
            "occlusion": {"foreheadOccluded": False, "eyeOccluded": False, "mouthOccluded": True},
            "hair": {
                "bald": 0.03,
                "invisible": False,
                "hairColor": [
                    {"color": "brown", "confidence": 0.99},
                    {"color": "black", "confidence": 0.85},
                    {"color": "other", "confidence": 0.25},
                ],
            },
        },
    }
]


def changed(path, value):
    """FFHQ's first face with one value replaced (or removed, where it is `KeyError`)."""

    def copy(node, keys):
        if not keys:
            return value
        node = dict(node)
        if len(keys) == 1 and value is KeyError:
            del node[keys[0]]
        else:
            node[keys[0]] = copy(node[keys[0]], keys[1:])
        return node

    return copy(FFHQ[0]["faceAttributes"], path.split("."))


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
    groups = {number: {field.group for field in fields} for number, fields in ATTRIBUTE_SETS.items()}
    assert groups[1] == {"emotion", "head pose"}
    assert groups[2] == groups[1] | {"glasses", "makeup", "occlusions"}
    assert groups[3] == groups[2] | {"age", "facial hair", "hair", "gender"}
    assert {number: len(fields) for number, fields in ATTRIBUTE_SETS.items()} == {1: 11, 2: 17, 3: 30}
    assert {number: len(fields) for number, fields in ATTRIBUTE_SETS.items()} == {1: 11, 2: 17, 3: 30}


def test_field_names_are_unique():
    assert len({field.name for field in FIELDS}) == len(FIELDS)


def test_ffhq_metadata_is_normalised_as_documented():
    vector = dict(zip([field.name for field in FIELDS], encode_ffhq(FFHQ, 3), strict=True))
    assert vector == pytest.approx(
        {
            "age": 0.27,
            "anger": 0,
            "contempt": 0.001,
            "disgust": 0.002,
            "fear": 0.003,
            "happiness": 0.9,
            "neutral": 0.09,
            "sadness": 0.004,
            "surprise": 0,
            "moustache": 0,
            "beard": 0.1,
            "sideburns": 0.2,
            "bald": 0.03,
            "hair_invisible": 0,
            "brown_hair": 0.99,
            "blond_hair": 0,
            "black_hair": 0.85,
            "red_hair": 0,
            "gray_hair": 0,
            "other_hair": 0.25,
            "roll": 0.05,
            "yaw": -0.25,
            "pitch": -0.1,
            "gender": 0,
            "glasses": 1,
            "eye_makeup": 1,
            "lip_makeup": 0,
            "forehead_occluded": 0,
            "eye_occluded": 0,
            "mouth_occluded": 1,
        }
    )


@pytest.mark.parametrize("attribute_set", [1, 2, 3])
def test_ffhq_metadata_is_taken_as_list_face_or_attributes(attribute_set):
    expected = encode_ffhq(FFHQ, attribute_set)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(encode_ffhq(FFHQ[0], attribute_set), expected)
    np.testing.assert_array_equal(encode_ffhq(FFHQ[0]["faceAttributes"], attribute_set), expected)


def test_smaller_sets_need_only_their_own_fields():
    attributes = FFHQ[0]["faceAttributes"]
    assert len(encode_ffhq({key: attributes[key] for key in ("emotion", "headPose")}, 1)) == 11


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("headPose.yaw", KeyError, "no headPose.yaw"),
        ("headPose", KeyError, "no headPose"),
        ("headPose.yaw", 120.0, "yaw=120.0: must be a number from -90 to 90"),
        ("emotion.anger", float("nan"), "anger=nan: must be a number from 0 to 1"),
        ("emotion.anger", "much", "anger='much': must be a number from 0 to 1"),
        ("age", -1, "age=-1: must be a number from 0 to 120"),
        ("age", 10**400, "must be a number from 0 to 120"),
        ("gender", "unknown", "gender='unknown': must be female or male"),
        ("glasses", "Monocle", "glasses='Monocle': must be one of NoGlasses"),
        ("hair", None, "no hair.bald"),
        ("hair.hairColor", KeyError, "no hair.hairColor"),
        ("hair.hairColor", [{"color": "green", "confidence": 1}], "hair.hairColor=.*color one of brown"),
        ("hair.hairColor", [{"color": "brown", "confidence": 3}], "brown_hair=3: must be a number from 0 to 1"),
        ("hair.hairColor", "brown", "hair.hairColor='brown': must be a list"),
    ],
)
def test_bad_ffhq_metadata_is_refused_with_field_and_rule(path, value, message):
    with pytest.raises(InvalidInputError, match=message):
        encode_ffhq(changed(path, value), 3)


@pytest.mark.parametrize(("metadata", "message"), [([], "lists no face"), ("text", "is str"), (None, "is NoneType")])
def test_metadata_without_a_face_is_refused(metadata, message):
    with pytest.raises(InvalidInputError, match=message):
        encode_ffhq(metadata, 1)


def test_friendly_names_and_ffhq_metadata_give_the_same_vector():
    values = {
        "age": 27,
        "gender": "female",
        "brown_hair": 0.99,
        "black_hair": 0.85,
        "other_hair": 0.25,
        "bald": 0.03,
        "contempt": 0.001,
        "disgust": 0.002,
        "fear": 0.003,
        "happiness": 0.9,
        "sadness": 0.004,
        "beard": 0.1,
        "sideburns": 0.2,
        "roll": 4.5,
        "yaw": -22.5,
        "pitch": -9,
        "glasses": True,
        "eye_makeup": 1,
        "mouth_occluded": np.True_,
    }
    np.testing.assert_allclose(encode(values, 3), encode_ffhq(FFHQ, 3), atol=1e-6)


@given(st.sampled_from([name for name in EMOTIONS if name != "neutral"]), st.floats(0, 1))
def test_what_emotions_lack_is_neutral(name, strength):
    emotions = dict(zip(EMOTIONS, encode({name: strength}, 1), strict=False))
    assert emotions[name] == pytest.approx(strength)
    assert emotions["neutral"] == pytest.approx(1 - strength)


@pytest.mark.parametrize(
    ("values", "attribute_set", "message"),
    [
        ({"glasses": 1}, 1, "set 1 has no glasses; it has anger"),
        ({"happines": 1}, 1, "has no happines"),
        ({"happiness": 0.8, "sadness": 0.8}, 1, "emotions sum to 1.6"),
        ({"yaw": 91}, 1, "yaw=91: must be a number from -90 to 90"),
        ({"yaw": "left"}, 1, "yaw='left'"),
        ({"gender": "male", "brown_hair": 1}, 3, "needs age"),
        ({"age": 20, "brown_hair": 1}, 3, "needs gender"),
        ({"age": 20, "gender": 1}, 3, "needs bald or hair_invisible or brown_hair"),
        ({}, 4, "attribute_set=4: choose one of 1, 2, 3"),
    ],
)
def test_bad_friendly_values_are_refused_with_field_and_rule(values, attribute_set, message):
    with pytest.raises(InvalidInputError, match=message):
        encode(values, attribute_set)


@pytest.mark.parametrize("attribute_set", [1, 2, 3])
def test_null_vector_is_minus_one_and_unlike_any_valid_vector(attribute_set):
    null = null_vector(attribute_set)
    assert null.dtype == np.float32
    np.testing.assert_array_equal(null, np.full(ATTRIBUTE_DIMS[attribute_set], -1))
    # The lowest valid value of every field: no vector of valid values is all -1.
    lowest = np.array([field.low / field.scale for field in ATTRIBUTE_SETS[attribute_set]])
    assert (lowest > -1).any()


def test_every_hair_colour_of_ffhq_is_a_field():
    assert {f"{color}_hair" for color in HAIR_COLORS} <= {field.name for field in FIELDS}
