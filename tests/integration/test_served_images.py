"""What the server promises about the images it makes."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm.config import to_json
from id3pm.pipeline import Pipeline
from id3pm.samples import PEOPLE
from id3pm.sampling.presets import PRESETS

pytestmark = pytest.mark.server
IMAGES = ["image", "image_64", "receipt"]
REQUEST: dict[str, Any] = {"seed": 7, "sampler": "ddim", "steps": 5, "eta": 0.3, "guidance_scale": 3.1, "sr_steps": 3}


def tensors(embedding: np.ndarray, seed: int, **options: Any) -> dict[str, np.ndarray]:
    dtypes = {int: np.int32, float: np.float32, str: object}
    return {
        "embedding": embedding[None],
        "seed": np.array([[seed]], dtype=np.int64),
        **{name: np.array([[value]], dtype=dtypes[type(value)]) for name, value in options.items()},
    }


def test_both_images_and_a_receipt_come_back_over_grpc(wire: Any, embedding: np.ndarray) -> None:
    answer = wire.infer("id3pm", IMAGES, **tensors(embedding, **REQUEST))
    assert answer["image"].shape == (1, 256, 256, 3) and answer["image"].dtype == np.uint8
    assert answer["image_64"].shape == (1, 64, 64, 3) and answer["image_64"].dtype == np.uint8
    receipt = json.loads(answer["receipt"][0, 0])
    assert receipt["seed"] == 7
    assert receipt["stages"]["base"]["options"]["guidance_scale"] == 3.1  # not 3.0999999: FP32 must not leave traces
    assert receipt["stages"]["base"]["options"]["sampler"] == "ddim"
    assert receipt["stages"]["sr"]["options"]["steps"] == 3


def test_the_same_request_gives_the_same_image_alone_in_company_and_in_process(
    wire: Any, embedding: np.ndarray, repository: Path
) -> None:
    alone = wire.infer("id3pm", IMAGES, **tensors(embedding, **REQUEST))
    others = [
        {"seed": seed, "sampler": sampler, "steps": steps, "guidance_scale": scale}
        for seed, (sampler, steps, scale) in enumerate(
            [("ddpm", 9, 1.0), ("dpmpp_2m", 4, 2.0), ("ddim", 6, 1.0), ("ddpm", 3, 5.0), ("dpmpp_2m", 12, 1.5)]
        )
    ]
    company = [wire.start("id3pm", IMAGES, **tensors(-embedding, **other)) for other in others]
    again = wire.start("id3pm", IMAGES, **tensors(embedding, **REQUEST))
    company += [wire.start("id3pm", IMAGES, **tensors(embedding[::-1].copy(), **other)) for other in others]
    in_company = again()
    for answer in company:
        answer()
    with Pipeline.load(repository, threads=2) as pipeline:
        options = {name: value for name, value in REQUEST.items() if name != "seed"}
        in_process = pipeline.generate(embedding, REQUEST["seed"], **options)
    for name, here in (("image", in_process.images), ("image_64", in_process.images_64)):
        assert np.array_equal(alone[name], in_company[name])
        assert np.array_equal(alone[name], here)
    assert json.loads(alone["receipt"][0, 0]) == in_process.receipts[0]


def test_a_batch_comes_back_in_order_and_equals_single_requests(wire: Any, embedding: np.ndarray) -> None:
    vectors = np.stack([embedding, -embedding, embedding[::-1]])
    seeds, steps = np.array([[3], [1], [2]], dtype=np.int64), np.array([[6], [1], [3]], dtype=np.int32)
    batch = wire.infer("id3pm", IMAGES, embedding=vectors, seed=seeds, steps=steps)
    for row in range(3):
        single = wire.infer(
            "id3pm", IMAGES, embedding=vectors[row : row + 1], seed=seeds[row : row + 1], steps=steps[row : row + 1]
        )
        assert np.array_equal(batch["image"][row], single["image"][0])
        assert json.loads(batch["receipt"][row, 0])["seed"] == seeds[row, 0]


def test_a_parameter_does_what_the_tensor_of_its_name_does(wire: Any, embedding: np.ndarray) -> None:
    as_tensors = wire.infer("id3pm", IMAGES, **tensors(embedding, seed=1, steps=4, sr_steps=1, dynamic_threshold=0.99))
    as_parameters = wire.infer(
        "id3pm",
        IMAGES,
        parameters={"seed": 1, "steps": 4, "sr_steps": 1, "dynamic_threshold": "0.99"},
        embedding=embedding[None],
    )
    assert np.array_equal(as_tensors["image"], as_parameters["image"])


def test_a_preset_reaches_both_stages_and_a_value_beside_it_wins(wire: Any, embedding: np.ndarray) -> None:
    sent = tensors(embedding, seed=1, preset="fast", steps=3, sr_spacing="logsnr")
    made = json.loads(wire.infer("id3pm", IMAGES, **sent)["receipt"][0, 0])["stages"]
    fast = PRESETS["fast"]
    base = to_json(dataclasses.replace(fast.base, steps=3))
    del base["consistency"]  # an option of super-resolution alone
    assert made["base"]["options"] == {**base, "attributes": [-1.0] * 7}  # none were given
    assert made["sr"]["options"] == to_json(dataclasses.replace(fast.sr, spacing="logsnr"))


def test_what_is_not_sent_takes_the_defaults_of_the_bundle(wire: Any, embedding: np.ndarray) -> None:
    receipt = json.loads(wire.infer("id3pm", IMAGES, **tensors(embedding, seed=1))["receipt"][0, 0])
    assert receipt["stages"]["base"]["options"]["steps"] == 3
    assert receipt["stages"]["base"]["options"]["sampler"] == "ddpm"
    assert receipt["stages"]["sr"]["options"]["steps"] == 2


def test_plain_http_gives_a_png_that_carries_its_receipt(wire: Any, embedding: np.ndarray) -> None:
    status, body = wire.http(
        "/v2/models/id3pm_png/generate", {"embedding": embedding.tolist(), "seed": 7, "steps": 4, "sampler": "ddim"}
    )
    assert status == 200, body
    answer = json.loads(body)
    picture = Image.open(io.BytesIO(base64.b64decode(answer["png"])))
    assert picture.size == (256, 256)
    assert json.loads(picture.text["id3pm"]) == json.loads(answer["receipt"])
    assert "trainedAlgorithmicMedia" in picture.text["XML:com.adobe.xmp"]
    over_grpc = wire.infer("id3pm", IMAGES, **tensors(embedding, seed=7, steps=4, sampler="ddim"))
    assert np.array_equal(np.asarray(picture), over_grpc["image"][0])


@pytest.fixture(scope="module")
def photo() -> bytes:
    return (Path(__file__).parents[2] / "demo" / "astronaut.jpg").read_bytes()


def test_a_photograph_gives_the_faces_of_its_id_vector(wire: Any, photo: bytes) -> None:
    found = wire.infer("face_embedding", ["embedding", "detection", "faces"], photo=np.array([[photo]], dtype=object))
    assert found["faces"].tolist() == [[1]]
    assert found["detection"].shape == (1, 15)
    assert np.linalg.norm(found["embedding"]) == pytest.approx(1.0, abs=1e-5)
    seed = np.array([[5]], dtype=np.int64)
    from_photo = wire.infer("id3pm_photo", ["image", "embedding"], photo=np.array([[photo]], dtype=object), seed=seed)
    assert np.array_equal(from_photo["embedding"], found["embedding"])
    from_vector = wire.infer("id3pm", ["image"], embedding=found["embedding"], seed=seed)
    assert np.array_equal(from_photo["image"], from_vector["image"])
    body = {"photo": base64.b64encode(photo).decode(), "seed": 5, "face": "only"}
    status, content = wire.http("/v2/models/id3pm_photo_png/generate", body)
    assert status == 200, content
    png = Image.open(io.BytesIO(base64.b64decode(json.loads(content)["png"])))
    assert np.array_equal(np.asarray(png), from_photo["image"][0])


def test_a_photograph_on_its_head_is_turned_and_its_base64_may_be_url_safe(wire: Any) -> None:
    image = Image.open(sorted(PEOPLE.glob("*.png"))[0])
    found = {}
    for turn in (0, 180):
        file = io.BytesIO()
        image.rotate(turn).save(file, "PNG")
        coded = base64.urlsafe_b64encode(file.getvalue()).rstrip(b"=")
        found[turn] = wire.infer("face_embedding", ["embedding", "turned"], photo=np.array([[coded]], dtype=object))
        assert found[turn]["turned"].tolist() == [[turn]]
    assert np.array_equal(found[0]["embedding"], found[180]["embedding"])
    body = {"photo": coded.decode(), "seed": 5, "steps": 2, "sr_steps": 2}
    status, content = wire.http("/v2/models/id3pm_photo_png/generate", body)
    assert status == 200, content
    assert json.loads(content)["turned"] == 180


def test_the_metrics_count_images_and_steps(wire: Any, embedding: np.ndarray) -> None:
    before = wire.metrics()
    wire.infer("id3pm", IMAGES, **tensors(embedding, seed=1, steps=5, guidance_scale=2.0, sr_steps=3))
    after = wire.metrics()

    def grew(name: str, model: str) -> float:
        key = f'id3pm_{name}{{model="{model}"}}'
        return after[key] - before[key]

    assert grew("images_total", "denoiser_64") == grew("images_total", "super_resolution") == 1
    assert (grew("steps_total", "denoiser_64"), grew("steps_total", "super_resolution")) == (5, 3)
    assert (grew("engine_rows_total", "denoiser_64"), grew("engine_rows_total", "super_resolution")) == (10, 3)
    assert grew("step_seconds_count", "denoiser_64") == 5
