from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from id3pm import __version__
from id3pm.config import SamplingOptions, from_json
from id3pm.engines.manifest import read_manifest
from id3pm.errors import InvalidInputError
from id3pm.sampling.receipt import add_stage, new_receipt, parse_receipt


def test_receipt_names_everything_that_made_the_image(base_folder: Path, sr_folder: Path) -> None:
    base, sr = read_manifest(base_folder), read_manifest(sr_folder)
    identity = np.array([0.5, -1.0], dtype=np.float32)
    options = SamplingOptions(steps=9, guidance_scale=1.5)
    first = add_stage(new_receipt("demo", 7, identity), base, "engine a", options, np.array([0.1, 1], np.float32))
    receipt = add_stage(first, sr, "engine b", SamplingOptions())
    assert list(first["stages"]) == ["base"]  # the earlier receipt is left as it was
    assert receipt["schema"] == 1 and receipt["id3pm"] == __version__
    assert receipt["bundle"] == "demo" and receipt["seed"] == 7
    assert receipt["id_vector_sha256"] == hashlib.sha256(struct.pack("<2f", 0.5, -1.0)).hexdigest()
    stage = receipt["stages"]["base"]
    attributes = stage["options"].pop("attributes")
    assert np.array_equal(np.array(attributes, np.float32), np.array([0.1, 1], np.float32))
    assert from_json(SamplingOptions, stage["options"]) == options
    assert stage["engine_sha256"] == base.file_sha256 and stage["weights_sha256"] == base.bundle.weights_sha256
    assert stage["engine"] == "engine a" and receipt["stages"]["sr"]["engine"] == "engine b"
    assert parse_receipt(json.dumps(receipt)) == receipt


def test_a_receipt_names_the_addresses_that_bundle_and_engine_were_pulled_from(base_folder: Path) -> None:
    manifest = read_manifest(base_folder)
    bundle = dataclasses.replace(manifest.bundle, source="hf://lab/faces@" + "a" * 40)
    pulled = dataclasses.replace(manifest, bundle=bundle, source="oci://a.b/c@sha256:" + "b" * 64)
    receipt = add_stage(new_receipt("demo", 7, None), pulled, "engine", SamplingOptions())
    assert receipt["stages"]["base"]["sources"] == {"bundle": bundle.source, "engine": pulled.source}
    assert "sources" not in add_stage(receipt, manifest, "engine", SamplingOptions())["stages"]["base"]
    assert bundle == manifest.bundle, "the hashes say whether an engine is up to date"


def test_a_receipt_says_that_bits_depend_on_the_company_and_how_much(base_folder: Path) -> None:
    manifest = read_manifest(base_folder)
    company = {"rows": [1, 4], "relative_error": 1e-4, "psnr_db": 61.0, "max_levels": 1}
    fast = dataclasses.replace(manifest, buckets="fast", parity=dataclasses.replace(manifest.parity, company=company))
    stage = add_stage(new_receipt("demo", 7, None), fast, "engine", SamplingOptions())["stages"]["base"]
    assert (stage["buckets"], stage["company"]) == ("fast", company)
    exact = add_stage(new_receipt("demo", 7, None), manifest, "engine", SamplingOptions())["stages"]["base"]
    assert "buckets" not in exact and "company" not in exact


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2, "stages": {}}', '{"schema": 1, "stages": []}'])
def test_text_that_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="receipt"):
        parse_receipt(text)
