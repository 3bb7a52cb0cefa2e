"""Golden pictures of a tiny StyleGAN2, computed by stylegan2-pytorch's own generator.

    python tests/golden/make_stylegan2_golden.py /path/to/stylegan2-pytorch

The original is https://github.com/rosinality/stylegan2-pytorch (MIT). Its CUDA extensions are not compiled: its own
CPU branches run. Its channels are fixed in its source; here they are replaced by those of the case. Nothing of id3pm
is imported here.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from unittest import mock

import torch
import torch.utils.cpp_extension

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.golden.stylegan2_case import CHANNELS, LATENT, MAPPING_LAYERS, SIZE, case_latents, case_weights  # noqa: E402


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    torch.utils.cpp_extension.load = mock.MagicMock()
    source = (folder / "model.py").read_text(encoding="utf-8")
    source, replaced = re.subn(r"self\.channels = \{.*?\}", f"self.channels = {CHANNELS}", source, count=1, flags=re.S)
    assert replaced
    original: dict[str, object] = {}
    exec(compile(source, "model.py", "exec"), original)
    generator = original["Generator"](SIZE, LATENT, MAPPING_LAYERS)  # type: ignore[operator]
    missing, unexpected = generator.load_state_dict(case_weights(), strict=False)
    assert not unexpected and all(name.endswith("kernel") for name in missing), (missing, unexpected)
    with torch.inference_mode():
        pictures, _ = generator([case_latents()], randomize_noise=False)
    golden = {"pixels": pictures[:, :, ::5, ::5].tolist()}
    Path(__file__).with_name("stylegan2.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
