"""From sliders to the options of a request, and from two people to one ID vector."""

from __future__ import annotations

import dataclasses
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm.attributes import ATTRIBUTE_SETS, decode, describe_fields, encode
from id3pm.page import served, space, uploads
from id3pm.page.people import crop
from id3pm.page.settings import MAX_SEED, QUALITIES, Settings, dice
from id3pm.page.user_messages import PageError
from id3pm.sampling.presets import PRESETS


def vectors(count: int = 2) -> list[np.ndarray]:
    random = np.random.Generator(np.random.Philox(3))
    return [random.standard_normal(128).astype(np.float32) for _ in range(count)]


def changed(quality: str, **values: Any) -> dict[str, Any]:
    return dataclasses.replace(Settings.of_preset(quality, 1), **values).options()


@pytest.mark.parametrize("quality", PRESETS)
def test_a_quality_alone_is_its_preset(quality: str) -> None:
    assert changed(quality) == {"preset": quality}


def test_the_models_own_settings_send_nothing() -> None:
    assert changed("bundle", steps=99) == {}


def test_what_was_moved_is_sent_beside_the_preset() -> None:
    assert changed("fast", steps=12, guidance_scale=3.5) == {"preset": "fast", "steps": 12, "guidance_scale": 3.5}
    assert changed("paper", guidance_high=500, sr_steps=20) == {"preset": "paper", "guidance_high": 500, "sr_steps": 20}


def test_noise_of_ddim_is_not_sent_to_other_samplers() -> None:
    assert changed("fast", sampler="dpmpp_2m", eta=0.5) == {"preset": "fast", "sampler": "dpmpp_2m"}


def test_every_quality_of_the_page_is_a_preset_or_the_bundles() -> None:
    assert set(QUALITIES) == {*PRESETS, "bundle"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", None, "seed is empty"),
        ("seed", -1, "-1 cannot be a seed"),
        ("seed", 1.5, "1.5 cannot be a seed"),
        ("seed", float(MAX_SEED) * 4, "cannot be a seed"),
        ("steps", None, "steps is empty"),
    ],
)
def test_a_field_that_no_request_may_have_is_named(name: str, value: Any, words: str) -> None:
    fields = dataclasses.asdict(Settings.of_preset("fast", 1)) | {name: value}
    with pytest.raises(PageError, match=words):
        Settings.of_controls(tuple(fields.values()))


def test_an_empty_guidance_interval_is_refused() -> None:
    with pytest.raises(PageError, match="begin at timestep 600, after its end at 500"):
        changed("fast", guidance_low=600, guidance_high=500)


def test_the_dice_give_seeds() -> None:
    rolls = {dice() for _ in range(20)}
    assert len(rolls) > 15 and all(0 <= roll <= MAX_SEED for roll in rolls)


def test_previews_are_about_25_however_many_steps() -> None:
    assert Settings.of_preset("fast", 1).preview_every == 1
    assert Settings.of_preset("paper", 1).preview_every == 10


def test_there_is_no_way_between_opposite_vectors() -> None:
    a, b = vectors()
    with pytest.raises(PageError, match="no way between"):
        space.blend(a, -a, 0.5)
    with pytest.raises(PageError, match="do not fit"):
        space.blend(a, b[:64], 0.5)


LATENT = Path(__file__).parents[2] / "bundles/demo/latent"


def test_sliders_stay_away_without_a_file(tmp_path: Path) -> None:
    nothing = space.Space.load(tmp_path)
    (a,) = vectors(1)
    assert nothing.sliders == [] and nothing.walk(a, [], "sface") is a
    shutil.copy(LATENT / "directions.npz", tmp_path)
    assert [slider.limit for slider in space.Space.load(tmp_path).sliders] == [5.0] * 6


def test_the_demo_bundles_directions_and_axes_move_a_vector_and_refuse_those_of_another_model() -> None:
    here = space.Space.load(LATENT)
    assert here.axes is not None and here.directions is not None
    names = [slider.name for slider in here.sliders]
    assert [slider.label for slider in here.sliders[:2]] == ["Cheek brightness", "Hair brightness"]
    (a,) = vectors(1)
    a /= np.linalg.norm(a)
    for name, amount, pointer in (
        ("axis-2", -0.5, here.axes.axes[1]),
        ("smile", 3.0, here.directions["smile"].vector),
    ):
        amounts = [amount if each == name else 0.0 for each in names]
        moved = here.walk(a, amounts, "sface")
        assert np.isclose(np.linalg.norm(moved), 1.0)
        assert np.sign(amount) * ((moved - a) @ pointer) > 0.25
        with pytest.raises(PageError, match="do not fit this service"):
            here.walk(a, amounts, "facenet")
    assert here.walk(a, [0.0] * len(names), "facenet") is a and here.walk(a, (), "facenet") is a


def test_the_attribute_panel_follows_the_schema() -> None:
    yaw = {"name": "yaw", "group": "head pose", "low": -40, "high": 40, "unit": "degrees", "default": 0}
    beard = {"name": "full_beard", "group": "facial hair", "low": 0, "high": 1, "unit": None, "default": None}
    about = served.read({"bundle": "mine", "id_vector_model": "sface", "identity_dim": 128, "attributes": [yaw, beard]})
    assert about.name == "mine"
    assert [field.label for field in about.attributes] == ["Yaw (degrees)", "Full beard"]
    assert about.attributes[0].low == -40 and about.attributes[1].start == 0.5
    assert served.read(types.SimpleNamespace(bundle="demo", attributes=())).attributes == ()


@pytest.mark.parametrize("attribute_set", ATTRIBUTE_SETS)
def test_one_slider_alone_can_be_asked_for_whatever_the_set_needs(attribute_set: int | str) -> None:
    about = served.read({"attributes": describe_fields(attribute_set)})
    assert about.requested({}) == {} and about.requested({"of another bundle": 1}) == {}
    for field in about.attributes:
        value = field.low if field.start == field.high else field.high
        requested = about.requested({field.name: value})
        given = decode(encode(requested, attribute_set), attribute_set)
        assert given[field.name] == pytest.approx(value)
        if about.free:
            assert list(given) == [field.name]
            continue
        shown = {each.name: each.start for each in about.attributes if each.name not in (field.name, "neutral")}
        assert {name: given[name] for name in shown} == pytest.approx(shown), "what the other sliders show"


def test_a_slider_without_a_default_begins_where_faces_are() -> None:
    starts = {field.name: field.start for field in served.read({"attributes": describe_fields(3)}).attributes}
    assert starts["age"] == 30 and starts["neutral"] == 1 and starts["brown_hair"] == 0
    starts = {field.name: field.start for field in served.read({"attributes": describe_fields("landmarks")}).attributes}
    assert starts["yaw"] == 0 and starts["smile"] == 0.5


@pytest.mark.parametrize("box", [(-4, -4, 20, 20), (90, 40, 30, 30), (10, 10, 200, 200), (40, 20, 10, 14)])
def test_a_face_at_the_edge_is_cropped_within_the_photograph(box: tuple[int, ...]) -> None:
    photo = Image.new("RGB", (100, 60), "red")
    assert crop(photo, np.array(box)).getcolors() == [(192 * 192, (255, 0, 0))]


def test_a_dropped_file_is_read_and_gone(tmp_path: Path) -> None:
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash/photo.jpg").write_bytes(b"face")
    assert uploads.take({"path": str(tmp_path / "hash/photo.jpg")}, tmp_path) == b"face"
    assert not list(tmp_path.iterdir())


def test_no_other_file_can_be_named(tmp_path: Path) -> None:
    folder, other = tmp_path / "uploads", tmp_path / "secret"
    folder.mkdir()
    other.write_bytes(b"secret")
    (folder / "link").symlink_to(other)
    for path in (other, folder / "../secret", folder / "link", folder, ""):
        with pytest.raises(PageError, match="did not arrive"):
            uploads.take({"path": str(path)}, folder)
    for nothing in (None, [], {}):
        with pytest.raises(PageError, match="did not arrive"):
            uploads.take(nothing, folder)
    assert other.read_bytes() == b"secret"
