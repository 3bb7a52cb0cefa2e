"""Promises of id3pm.attributes.ffhq: what FFHQ's metadata become."""

import numpy as np
import pytest

from id3pm.attributes import FIELDS, HAIR_COLORS, encode
from id3pm.attributes.ffhq import encode_ffhq
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


def test_a_set_of_ours_is_not_read_from_ffhqs_metadata():
    with pytest.raises(InvalidInputError, match="landmarks is not in FFHQ's metadata: choose 1, 2 or 3"):
        encode_ffhq(FFHQ, "landmarks")


def test_every_hair_colour_of_ffhq_is_a_field():
    assert {f"{color}_hair" for color in HAIR_COLORS} <= {field.name for field in FIELDS}
