from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from id3pm.config import PAPER_SR_SAMPLING, DiffusionConfig, SamplingOptions, UNetConfig, to_json
from id3pm.errors import CheckpointError, ConfigError, InvalidInputError
from id3pm.export.face import build as face_models
from id3pm.face.models import require_id_vector_model
from id3pm.formats.bundle import load_weights, read_bundle, verify
from id3pm.training.convert import convert_command
from id3pm.training.stage_files import EXAMPLE, PRESETS, read_stage
from id3pm.unet.model import expected_shapes, load_unet
from tests.golden.unet_cases import inputs, weights

TINY: dict[str, Any] = {"num_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 1), "attention_resolutions": (4,)}
BASE = UNetConfig(image_size=8, identity_dim=6, **TINY)
SR = UNetConfig(image_size=16, low_res_size=8, **TINY)

Convert = Callable[..., Result]


def save_checkpoint(path: Path, config: UNetConfig, without: str = "no key begins so") -> None:
    tensors = {k: torch.from_numpy(v) for k, v in weights(expected_shapes(config)).items() if not k.startswith(without)}
    torch.save(tensors, path)


def write_stage(path: Path, config: UNetConfig, **more: Any) -> None:
    diffusion = to_json(DiffusionConfig(diffusion_steps=500, noise_schedule="linear"))
    stage = "base" if config.low_res_size is None else "sr"
    path.write_text(json.dumps({stage: to_json(config), f"{stage}_diffusion": diffusion, **more}))


@pytest.fixture
def convert(tmp_path: Path) -> Iterator[Convert]:
    """Runs the command on two tiny checkpoints in `tmp_path`; keyword arguments replace or remove options."""
    save_checkpoint(tmp_path / "base.pt", BASE)
    save_checkpoint(tmp_path / "sr.pt", SR)
    write_stage(tmp_path / "base.json", BASE)
    write_stage(tmp_path / "sr.json", SR, sr_sampling=to_json(PAPER_SR_SAMPLING))

    def run(*flags: str, proof: bool = False, **options: str | None) -> Result:
        values: dict[str, str | None] = {
            "base": str(tmp_path / "base.pt"),
            "sr": str(tmp_path / "sr.pt"),
            "base_config": str(tmp_path / "base.json"),
            "sr_config": str(tmp_path / "sr.json"),
            "id_vector_model": "sface",
            "name": "tiny",
            "licence": "MIT",
            "out": str(tmp_path / "bundle"),
        }
        values.update(options)
        arguments = [f"--{key.replace('_', '-')}={value}" for key, value in values.items() if value is not None]
        return CliRunner().invoke(convert_command, [*arguments, *flags, *([] if proof else ["--no-proof"])])

    yield run


def assert_refused(result: Result, error: type[Exception], *texts: str) -> None:
    assert result.exit_code != 0
    assert isinstance(result.exception, error), result.output
    for text in texts:
        assert text in str(result.exception)


def test_a_bundle_is_called_as_its_folder_unless_named(convert: Convert, tmp_path: Path) -> None:
    assert convert(name=None, out=str(tmp_path / "mine")).exit_code == 0
    assert read_bundle(tmp_path / "mine").name == "mine"


def test_converted_bundle_holds_the_weights_and_the_configuration(convert: Convert, tmp_path: Path) -> None:
    result = convert()
    assert result.exit_code == 0, result.output
    assert "wrote bundle 'tiny'" in result.output
    bundle = verify(tmp_path / "bundle")
    assert (bundle.base, bundle.sr, bundle.identity_dim, bundle.attribute_set) == (BASE, SR, 6, None)
    assert bundle.base_diffusion == DiffusionConfig(diffusion_steps=500, noise_schedule="linear")
    assert (bundle.sampling, bundle.sr_sampling) == (SamplingOptions(), PAPER_SR_SAMPLING)
    assert bundle.training_card["converted_from"] == {"base": "base.pt", "sr": "sr.pt"}
    assert bundle.training_card["architecture"]["base"] == "not proven, as asked for"
    assert sorted(file.name for file in (tmp_path / "bundle").iterdir()) == [
        "MODEL_CARD.md",
        "base.safetensors",
        "bundle.json",
        "sr.safetensors",
    ]
    for stage, config in (("base", BASE), ("sr", SR)):
        loaded = load_weights(tmp_path / "bundle", stage)
        assert all(np.array_equal(loaded[key], array) for key, array in weights(expected_shapes(config)).items())


@pytest.mark.parametrize(
    ("flags", "expected"), [((), None), (("--raw-id-vectors",), False), (("--unit-id-vectors",), True)]
)
def test_the_norm_of_id_vectors_is_said_or_left_to_the_face_models(
    convert: Convert, tmp_path: Path, flags: tuple[str, ...], expected: bool | None
) -> None:
    assert convert(*flags).exit_code == 0
    assert read_bundle(tmp_path / "bundle").l2_normalised is expected


def test_fp16_storage_keeps_the_output_within_half_precision(convert: Convert, tmp_path: Path) -> None:
    assert convert("--storage=fp16").exit_code == 0
    arguments = {key: torch.from_numpy(array) for key, array in inputs(BASE).items()}
    with torch.no_grad():
        expected = load_unet(BASE, weights(expected_shapes(BASE)))(**arguments)
        actual = load_unet(BASE, load_weights(tmp_path / "bundle", "base"))(**arguments)
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert 0 < error < 2e-3


def test_checkpoint_without_identity_layers_is_refused_with_their_names(convert: Convert, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "base.pt", BASE, without="identity_embed.")
    missing = [key for key in expected_shapes(BASE) if key.startswith("identity_embed.")]
    assert len(missing) == 4
    assert_refused(convert(), CheckpointError, "base.pt", *missing)
    assert not (tmp_path / "bundle").exists()


def test_swapped_checkpoints_are_refused(convert: Convert, tmp_path: Path) -> None:
    result = convert(base=str(tmp_path / "sr.pt"), sr=str(tmp_path / "base.pt"))
    assert_refused(result, CheckpointError, "input_blocks.0.0.weight: the checkpoint has (32, 6, 3, 3)")


def test_options_name_the_conditions(convert: Convert, tmp_path: Path) -> None:
    unconditioned = UNetConfig(image_size=8, **TINY)
    write_stage(tmp_path / "base.json", unconditioned)
    assert_refused(convert(), ConfigError, "give --identity-dim")
    conditioned = UNetConfig(image_size=8, identity_dim=5, attribute_dim=17, **TINY)
    save_checkpoint(tmp_path / "base.pt", conditioned)
    assert convert("--identity-dim=5", "--attribute-set=2").exit_code == 0
    bundle = read_bundle(tmp_path / "bundle")
    assert (bundle.base, bundle.attribute_set) == (conditioned, 2)


def test_other_names_of_the_identity_layers_are_mapped(convert: Convert, tmp_path: Path) -> None:
    state = torch.load(tmp_path / "base.pt", weights_only=True)
    torch.save({key.replace("identity_embed.", "id_mlp."): value for key, value in state.items()}, tmp_path / "base.pt")
    assert_refused(convert(), CheckpointError, "id_mlp.0.weight")
    assert convert("--rename=id_mlp.=identity_embed.").exit_code == 0
    verify(tmp_path / "bundle")
    wrong = convert("--rename=id_mlp.", "--force")
    assert wrong.exit_code == 2
    assert "expected OLD=NEW" in wrong.output


def test_prefixes_of_either_stage_may_be_replaced_by_nothing(convert: Convert, tmp_path: Path) -> None:
    for name in ("base.pt", "sr.pt"):
        state = torch.load(tmp_path / name, weights_only=True)
        torch.save({f"net.{key}": value for key, value in state.items()}, tmp_path / name)
    assert_refused(convert("--rename=net.="), CheckpointError, "sr.pt", "net.time_embed.0.weight")
    assert convert("--rename=net.=", "--sr-rename=net.=").exit_code == 0
    verify(tmp_path / "bundle")


def test_wrappers_of_either_stage_are_taken_off_and_said(convert: Convert, tmp_path: Path) -> None:
    for name, prefix in (("base.pt", "module."), ("sr.pt", "_orig_mod.")):
        state = torch.load(tmp_path / name, weights_only=True)
        torch.save({prefix + key: value for key, value in state.items()}, tmp_path / name)
    result = convert()
    assert result.exit_code == 0
    assert "base.pt: took module. off the keys" in result.output
    assert "sr.pt: took _orig_mod. off the keys" in result.output


@pytest.mark.parametrize("name", ["nosuch", "sface:x", "insightface", "insightface:", ":x"])
def test_an_unknown_fr_model_is_refused_with_those_that_are_known(convert: Convert, name: str) -> None:
    result = convert(id_vector_model=name)
    assert_refused(result, InvalidInputError, name, "sface, insightface:PACK, facenet:FILE", "onnx:NAME")


@pytest.mark.parametrize("kind", face_models.FORMS)
def test_every_fr_model_that_can_be_built_can_be_named(kind: str) -> None:
    kind, colon, _ = kind.partition(":")
    require_id_vector_model(f"{kind}:mine" if colon else kind)


def test_the_example_in_the_help_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(EXAMPLE)
    read = read_stage(tmp_path / "base.json", "base")
    assert replace(read.unet, dropout=0.1) == PRESETS["paper-base-64"].unet
    assert read.diffusion == PRESETS["paper-base-64"].diffusion
    text = CliRunner().invoke(convert_command, ["--help"]).output
    assert '"attention_resolutions": [32, 16, 8], "num_heads": 3, "resblock_updown": true,\n' in text
    assert "landmarks" in text


def test_a_bundles_own_description_is_a_configuration_of_both_stages(convert: Convert, tmp_path: Path) -> None:
    assert convert().exit_code == 0
    (tmp_path / "bundle.json").write_bytes((tmp_path / "bundle/bundle.json").read_bytes())
    same = str(tmp_path / "bundle.json")
    assert convert(base_config=same, sr_config=same, out=str(tmp_path / "again")).exit_code == 0
    first, second = read_bundle(tmp_path / "bundle"), read_bundle(tmp_path / "again")
    assert (first.base, first.sr, first.base_diffusion) == (second.base, second.sr, second.base_diffusion)


def test_existing_bundle_is_replaced_only_by_force(convert: Convert, tmp_path: Path) -> None:
    assert convert().exit_code == 0
    again = convert(name="second")
    assert again.exit_code == 2
    assert "--force" in again.output
    assert read_bundle(tmp_path / "bundle").name == "tiny"
    assert convert("--force", name="second").exit_code == 0
    assert verify(tmp_path / "bundle").name == "second"


def test_default_architecture_is_the_papers(convert: Convert) -> None:
    result = convert(base_config=None, sr_config=None)
    assert_refused(result, CheckpointError, "base.pt", "of 544 tensors needed", "num_channels=32, identity_dim=6")
    assert len(str(result.exception).splitlines()) < 30, "a summary, not every key"
    assert PRESETS["paper-base-64"].diffusion.noise_schedule == "cosine"
    assert PRESETS["paper-sr-256"].diffusion.noise_schedule == "linear"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1, column 2: '{' (expecting property name"),
        ('{\n  "base": {},\n  "base_diffusion": {}},\n}', "line 3, column 24: '\"base_diffusion\": {}},' (extra data)"),
        ('{"base": {}, "base_diffusion": {}}', "base.json: base: UNetConfig needs"),
        ('{"base": {}}', "has no base_diffusion: need an object with 'base'"),
        ('{"unet": {}}', "has unet: need an object with 'base' (the architecture), 'base_diffusion'"),
        ("[]", "holds a list: need an object"),
    ],
)
def test_wrong_configuration_file_is_named(convert: Convert, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "base.json").write_text(content)
    assert_refused(convert(), ConfigError, "base.json", message)


def test_preset_and_configuration_exclude_each_other(convert: Convert) -> None:
    assert_refused(convert("--base-preset=paper-base-64"), ConfigError, "--base-preset and --base-config")


def test_diverged_weights_are_refused(convert: Convert, tmp_path: Path) -> None:
    state = torch.load(tmp_path / "sr.pt", weights_only=True)
    state["out.2.bias"][0] = torch.nan
    torch.save(state, tmp_path / "sr.pt")
    assert_refused(convert(), CheckpointError, "sr.pt: out.2.bias holds NaN or infinity (1 of 6 numbers)")
    assert not (tmp_path / "bundle" / "bundle.json").exists()
