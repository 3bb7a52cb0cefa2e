"""Checks objects against Kubernetes of several versions, or against the model of a custom resource."""

from __future__ import annotations

import functools

import kubernetes_validate
import kubernetes_validate.utils
from custom_resources import check_custom, is_custom

OLDEST = "1.30"
WITH_IMAGE_VOLUMES = "1.33"
NEWEST = "1.37"
VERSIONS = (OLDEST, WITH_IMAGE_VOLUMES, "1.35", NEWEST)

# It reads 2 MB of definitions for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
kubernetes_validate.utils.all_versions = functools.cache(kubernetes_validate.utils.all_versions)


def check(found: dict, version: str) -> None:
    """Checks one object.

    Raises:
        jsonschema.ValidationError: A field is unknown, missing or of a wrong form.
        kubernetes_validate.SchemaNotFoundError: There is no such kind.
    """
    if is_custom(found):
        check_custom(found, version)
    else:
        kubernetes_validate.validate(found, version, strict=True)
