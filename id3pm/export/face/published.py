"""The FR models of the paper's Table 1 that are PyTorch checkpoints: `--model facenet:PATH` and others.

Architecture, alignment and normalisation follow each model's repository; docs/face_models.md says where.
The weights cannot be shipped: a checkpoint's file is the user's, and its name becomes part of the ID vectors' name,
since other weights of one architecture give other vectors.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from id3pm.errors import CheckpointError, EngineMissingError
from id3pm.export.face import mtcnn as face_mtcnn
from id3pm.export.face.checkpoints import load_strictly, read_state_dict
from id3pm.export.face.export import export_network
from id3pm.export.face.source import FaceSource
from id3pm.face.manifest import FaceManifest
from id3pm.face.preprocessing import Preprocessing
from id3pm.formats.hashing import file_sha256

if TYPE_CHECKING:
    from torch import nn

RECIPE = 1
"""Version of the export: raise it with every change that alters graphs or manifests."""
DIMENSION = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One FR model of a repository.

    Attributes:
        preprocessing: As documented in the repository.
        prefix: Prefix of the network's keys in the checkpoint; may be empty.
        unused: Prefixes of keys that belong to the training head.
        checkpoint: Name of the published file.
        code: Where the code is, with its licence.
        weights: Where the weights are, and what is known of their licence.
        deviations: Differences from the repository.
    """

    preprocessing: Preprocessing
    prefix: str = ""
    unused: tuple[str, ...] = ()
    checkpoint: str
    code: str
    weights: str
    deviations: tuple[str, ...] = ()


_SAMPLED = dataclasses.replace(Preprocessing(), mean=127.5, std=127.5, antialias=False)  # (x / 255 - 0.5) / 0.5
PUBLISHED: Mapping[str, Published] = types.MappingProxyType(
    {
        "facenet": Published(
            preprocessing=Preprocessing(input_size=(160, 160), alignment="box", mean=127.5, std=128.0),
            unused=("logits.",),
            checkpoint="20180402-114759-vggface2.pt",
            code="github.com/timesler/facenet-pytorch (MIT)",
            weights="release v2.2.9 of that repository, trained on VGGFace2: MIT as the repository",
        ),
        "adaface": Published(
            preprocessing=dataclasses.replace(_SAMPLED, channel_order="BGR", fit="photo"),
            prefix="model.",
            checkpoint="adaface_ir50_ms1mv2.ckpt",
            code="github.com/mk-minchul/AdaFace (MIT)",
            weights="Google Drive, linked there, trained on MS1MV2: no licence of their own",
            deviations=(
                "landmarks: the same three MTCNN networks, but in facenet-pytorch's cascade instead of AdaFace's "
                "(other scales and thresholds)",
            ),
        ),
        "arcface-razzhigaev": Published(
            preprocessing=_SAMPLED,
            checkpoint="torchtest.pt",
            code="github.com/papermsucode/2020bboxrestoration (MIT)",
            weights="Git LFS of that repository, converted from insightface's first ArcFace model: insightface's "
            "models are for non-commercial research",
            deviations=(
                "alignment: the repository has no code for it; the landmarks of its pictures lie about where ArcFace's "
                "template puts them",
            ),
        ),
        "from": Published(
            preprocessing=dataclasses.replace(_SAMPLED, input_size=(112, 96), alignment="arcface-112x96"),
            checkpoint="model_p5_w1_9938_9470_6503.pth.tar",
            code="github.com/haibo-qiu/FROM (no licence)",
            weights="Google Drive, linked there, trained on CASIA-WebFace: no licence",
            deviations=(
                "alignment: the repository has no code for it; its pictures are 112x96 crops, for which the template "
                "is ArcFace's less 8 columns on either side",
            ),
        ),
    }
)


def published_source(kind: str, checkpoint: Path) -> FaceSource:
    """What `--model KIND:PATH` names.

    Args:
        kind: A key of `PUBLISHED`.
        checkpoint: The weights' file.

    Raises:
        EngineMissingError: There is no such file; the message says where to get it.
        MissingExtraError: MTCNN's weights are not installed.
    """
    model = PUBLISHED[kind]
    if not checkpoint.is_file():
        raise EngineMissingError(
            f"there is no file {checkpoint}: get {model.checkpoint} ({model.weights}; {model.code}) and name the file "
            f"where it is ({kind}:PATH)"
        )
    files = (checkpoint, *face_mtcnn.detector_files())
    return FaceSource(
        id_vector_model=vectors_of(kind, checkpoint),
        recipe=RECIPE,
        sha256=hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest(),
        build=functools.partial(_build, kind, checkpoint),
    )


def vectors_of(kind: str, checkpoint: Path) -> str:
    """What bundles call the ID vectors: kind and file without its ending, `facenet:20180402-114759-vggface2`."""
    stem = checkpoint.name
    for ending in (".tar", ".pt", ".pth", ".ckpt"):
        stem = stem.removesuffix(ending)
    return f"{kind}:{stem}"


def load_network(kind: str, checkpoint: Path) -> nn.Module:
    """The PyTorch module with the checkpoint's weights, in evaluation mode.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another architecture.
        MissingExtraError: PyTorch is not installed.
    """
    state = read_state_dict(checkpoint)
    network = new_network(kind)
    try:
        load_strictly(network, state, PUBLISHED[kind].prefix, PUBLISHED[kind].unused)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.name} is not of {kind}'s architecture: {error}") from error
    return network.eval()


def new_network(kind: str) -> nn.Module:
    """The architecture, with weights as PyTorch initialises them."""
    from id3pm.export.face.networks.adaface import AdaFaceBackbone
    from id3pm.export.face.networks.facenet import InceptionResnetV1
    from id3pm.export.face.networks.lresnet100 import LResNet100
    from id3pm.export.face.networks.occluded import OccludedFaceNet

    networks: Mapping[str, type[nn.Module]] = {
        "facenet": InceptionResnetV1,
        "adaface": AdaFaceBackbone,
        "arcface-razzhigaev": LResNet100,
        "from": OccludedFaceNet,
    }
    return networks[kind]()


def _build(kind: str, checkpoint: Path, folder: Path, source_sha256: str) -> FaceManifest:
    model = PUBLISHED[kind]
    encoder = folder / f"{kind}.onnx"
    height, width = model.preprocessing.input_size
    export_network(load_network(kind, checkpoint), encoder, (height, width), ("id_vector",))
    return FaceManifest(
        id_vector_model=vectors_of(kind, checkpoint),
        identity_dim=DIMENSION,
        detector="mtcnn",
        detector_files=face_mtcnn.build_detector(folder),
        encoder_file=encoder.name,
        encoder_sha256=file_sha256(encoder),
        preprocessing=model.preprocessing,
        source=f"{checkpoint.name} of {model.code}; {face_mtcnn.DETECTOR_SOURCE}",
        source_sha256=source_sha256,
        licence=f"{kind}: {model.weights}; {face_mtcnn.DETECTOR_LICENCE}",
        recipe=RECIPE,
        deviations=model.deviations,
    )
