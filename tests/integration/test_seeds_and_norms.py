"""Requests without a seed, and ID vectors that are not of norm 1, on every way in."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from services import running
from tritonclient.utils import InferenceServerException

from id3pm.engines.manifest import read_manifest, write_manifest
from id3pm.errors import InvalidInputError
from id3pm.pipeline import Pipeline
from id3pm.serving.service import Service
from id3pm_client import Client, InvalidRequestError

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def unit_repository(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a bundle that says nothing of norms, beside face models that scale ID vectors to norm 1."""
    folder = tmp_path_factory.mktemp("unit") / "triton_repo"
    shutil.copytree(repository, folder)
    engine = folder / "denoiser_64/1/engine"
    write_manifest(engine, dataclasses.replace(read_manifest(engine), l2_normalised=None))
    return folder


@pytest.fixture(scope="module")
def service(unit_repository: Path) -> Iterator[Service]:
    with running(unit_repository) as service:
        yield service


def generate(public: Any, **body: Any) -> tuple[np.ndarray, dict[str, Any]]:
    status, content = public.http("/v2/models/id3pm_png/generate", body)
    assert status == 200, content
    answer = json.loads(content)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"])))), json.loads(answer["receipt"])


def test_without_a_seed_a_random_one_is_drawn_and_named_and_makes_the_same_image_again(
    public: Any, embedding: np.ndarray
) -> None:
    body = {"embedding": embedding.tolist(), "seed": None}
    image, receipt = generate(public, **body)
    other, other_receipt = generate(public, **body)
    assert receipt["seed"] != other_receipt["seed"] and not np.array_equal(image, other)
    again, _ = generate(public, **{**body, "seed": receipt["seed"]})
    np.testing.assert_array_equal(again, image)


def test_so_it_is_over_grpc_for_every_image_of_a_request(public: Any, embedding: np.ndarray) -> None:
    vectors = np.stack([embedding, embedding])
    answer = public.infer("id3pm", ["image", "receipt"], embedding=vectors)
    seeds = [json.loads(text)["seed"] for text in answer["receipt"].reshape(-1)]
    assert seeds[0] != seeds[1] and all(0 <= seed < 2**32 for seed in seeds)
    again = public.infer("id3pm", ["image"], embedding=vectors, seed=np.array(seeds).reshape(-1, 1))
    np.testing.assert_array_equal(again["image"], answer["image"])


def test_a_stream_without_a_seed_has_one_for_both_stages(public: Any, embedding: np.ndarray) -> None:
    status, content = public.http("/v2/models/id3pm/generate_stream", {"embedding": embedding.tolist(), "steps": None})
    assert status == 200
    last = json.loads(content.decode().rstrip().rpartition("data: ")[2])
    image, _ = generate(public, embedding=embedding.tolist(), seed=last["receipt"]["seed"])
    streamed = Image.open(io.BytesIO(base64.b64decode(last["png"])))
    np.testing.assert_array_equal(np.asarray(streamed), image)


def test_a_request_that_comes_again_keeps_its_seed(public: Any, embedding: np.ndarray) -> None:
    body = {"embedding": embedding.tolist(), "id": "the same"}
    assert generate(public, **body)[1]["seed"] == generate(public, **body)[1]["seed"]


def over_http(public: Any, vector: np.ndarray) -> str:
    status, content = public.http("/v2/models/id3pm_png/generate", {"embedding": vector.tolist(), "seed": 1})
    return "" if status == 200 else str(json.loads(content)["error"])


def over_http_stream(public: Any, vector: np.ndarray) -> str:
    status, content = public.http("/v2/models/id3pm/generate_stream", {"embedding": vector.tolist(), "seed": 1})
    return "" if status == 200 else str(json.loads(content)["error"])


def over_grpc(public: Any, vector: np.ndarray) -> str:
    try:
        public.infer("denoiser_64", ["image_64"], embedding=vector[None], seed=np.array([[1]]))
    except InferenceServerException as error:
        return str(error.message())
    return ""


def with_the_client(public: Any, vector: np.ndarray) -> str:
    with Client(public.server.grpc_url) as client:
        try:
            client.generate(vector, 1)
        except InvalidRequestError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("way", [over_http, over_http_stream, over_grpc, with_the_client])
def test_a_vector_of_another_norm_is_refused_with_its_norm_and_the_rule(
    public: Any, embedding: np.ndarray, way: Callable[[Any, np.ndarray], str]
) -> None:
    """Times 22 no face came, times 5 a stranger's."""
    for factor in (22.0, 5.0, 1.02, 0.5):
        assert f"embedding has L2 norm {factor:.6g}: must be 1 (within 0.01)" in way(public, embedding * factor)
    for good in (embedding, embedding * np.float32(1.005), embedding.astype(np.float16).astype(np.float32)):
        assert way(public, good) == ""
    assert way(public, np.zeros_like(embedding)) == "", "no person in particular"


def test_the_description_says_which_norm_holds(public: Any) -> None:
    with Client(public.server.grpc_url) as client:
        assert client.describe()["l2_normalised"] is True


def test_the_pipeline_has_the_same_rule(unit_repository: Path, repository: Path, embedding: np.ndarray) -> None:
    with Pipeline.load(unit_repository, threads=1) as pipeline:
        with pytest.raises(InvalidInputError, match=r"has L2 norm 22: must be 1 \(within 0.01\)"):
            pipeline.generate(embedding * 22, 1)
        expected = pipeline.generate(embedding, 1).images
    with Pipeline.load(repository, threads=1) as pipeline:  # its bundle says that it takes vectors of any norm
        np.testing.assert_array_equal(pipeline.generate(embedding, 1).images, expected)
        assert not np.array_equal(pipeline.generate(embedding * 22, 1).images, expected)
