"""Golden distances between sets of features, computed by torch-fidelity's own functions.

    PYTHONPATH=.:/path/to/torch-fidelity python tests/golden/make_quality_golden.py

torch-fidelity 0.4.0 is https://github.com/toshas/torch-fidelity (Apache-2.0). torchvision, which these functions
do not touch, is stubbed. Nothing of id3pm is imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import torch

for library in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
    sys.modules[library] = mock.MagicMock()

from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402

from tests.golden.quality_cases import CASES, features  # noqa: E402


def main() -> None:
    golden = {}
    for name, case in CASES.items():
        first, second = map(torch.from_numpy, features(case))
        statistics = [fid_features_to_statistics(each) for each in (first, second)]
        golden[name] = {
            **fid_statistics_to_metric(*statistics, verbose=False),
            **kid_features_to_metric(first, second, kid_subset_size=case.count // 2, verbose=False),
            **prc_features_to_metric(first, second, save_cpu_ram=False, verbose=False),
        }
    text = json.dumps(golden, indent=1)
    Path(__file__).with_name("quality.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
