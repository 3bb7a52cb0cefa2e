"""The baseline's model repository: one model, named and shaped as our ensemble, so that the same client loads both."""

from __future__ import annotations

import shutil
from pathlib import Path

MODEL = Path(__file__).with_name("baseline_model.py")
CONFIG = """\
# Request-level dynamic batching; see model.py.
name: "id3pm"
backend: "python"
max_batch_size: {max_batch}
input [
  {{ name: "embedding" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "seed" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "steps" data_type: TYPE_INT32 dims: [ 1 ] optional: true }},
  {{ name: "sr_steps" data_type: TYPE_INT32 dims: [ 1 ] optional: true }}
]
output [
  {{ name: "image" data_type: TYPE_UINT8 dims: [ {large}, {large}, 3 ] }},
  {{ name: "image_64" data_type: TYPE_UINT8 dims: [ {small}, {small}, 3 ] }},
  {{ name: "receipt" data_type: TYPE_STRING dims: [ 1 ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {queue_delay_us} }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters [
  {{ key: "engines" value: {{ string_value: "{engines}" }} }},
  {{ key: "device" value: {{ string_value: "{device}" }} }}
]
"""


def build(
    folder: Path,
    engines: Path,
    *,
    max_batch: int = 8,
    queue_delay_us: int = 100_000,
    device: str = "cpu",
    sizes: tuple[int, int] = (64, 256),
) -> Path:
    """Writes the repository anew.

    Args:
        folder: Where to; what is there is removed.
        engines: The repository with the engines that both systems share.
        max_batch: Most requests in a batch.
        queue_delay_us: How long the batcher waits for a batch to fill.
        device: Of the engines; see `Pipeline.load`.
        sizes: Pixels of the images of both stages.
    """
    shutil.rmtree(folder, ignore_errors=True)
    version = folder / "id3pm" / "1"
    version.mkdir(parents=True)
    shutil.copyfile(MODEL, version / "model.py")
    settings = {"max_batch": max_batch, "queue_delay_us": queue_delay_us, "device": device}
    text = CONFIG.format(**settings, engines=engines.resolve(), small=sizes[0], large=sizes[1])
    (folder / "id3pm" / "config.pbtxt").write_text(text)
    return folder
