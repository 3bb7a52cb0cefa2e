"""Attribute vectors for conditioning: their fields (`schema`), encoding (`values`), and FFHQ's metadata (`ffhq`)."""

from id3pm.attributes.schema import (
    ATTRIBUTE_SETS,
    EMOTION_WORDS,
    EMOTIONS,
    FIELDS,
    FREE_SETS,
    HAIR_COLORS,
    NULL_VALUE,
    AttributeSet,
    Field,
    describe_fields,
    fields_of,
    null_vector,
    parse_set,
)
from id3pm.attributes.values import decode, emotion_name, encode, mirrored, parse_values

__all__ = [
    "ATTRIBUTE_SETS",
    "EMOTIONS",
    "EMOTION_WORDS",
    "FIELDS",
    "FREE_SETS",
    "HAIR_COLORS",
    "NULL_VALUE",
    "AttributeSet",
    "Field",
    "decode",
    "describe_fields",
    "emotion_name",
    "encode",
    "fields_of",
    "mirrored",
    "null_vector",
    "parse_set",
    "parse_values",
]
