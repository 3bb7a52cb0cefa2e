"""Golden accuracies of the verification protocols, computed by the originals' functions.

    PYTHONPATH=/path/to/facenet/src:/path/to/insightface/recognition/arcface_torch:. \
        python tests/golden/make_verification_golden.py

facenet is https://github.com/davidsandberg/facenet (MIT), insightface https://github.com/deepinsight/insightface (its
code is MIT). Both want old libraries (TensorFlow 1, mxnet), which the functions used here do not touch: they are
stubbed. Nothing of id3pm is imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import sklearn.preprocessing

for library in ("tensorflow", "tensorflow.python", "tensorflow.python.framework", "tensorflow.python.platform",
                "tensorflow.python.training", "mxnet", "six", "scipy.misc"):  # fmt: skip
    sys.modules[library] = mock.MagicMock()

import facenet  # noqa: E402
from eval import verification as insightface  # noqa: E402

from tests.golden.verification_cases import CASES, embeddings  # noqa: E402

THRESHOLDS = np.arange(0, 4, 0.01)


def main() -> None:
    golden = {}
    for name, case in CASES.items():
        views, same = embeddings(case)
        unit = views / np.linalg.norm(views, axis=-1, keepdims=True)  # FaceNet's network does it
        both = unit.astype(np.float64).reshape(case.pairs, 2, -1)
        roc = facenet.calculate_roc(
            THRESHOLDS, both[:, 0], both[:, 1], same, nrof_folds=10, distance_metric=1, subtract_mean=True
        )
        summed = sklearn.preprocessing.normalize(views.astype(np.float64).sum(axis=2).reshape(-1, case.dim))
        pairs = summed.reshape(case.pairs, 2, -1)
        other = insightface.calculate_roc(THRESHOLDS, pairs[:, 0], pairs[:, 1], same, nrof_folds=10)
        golden[name] = {"paper": roc[2].tolist(), "insightface": other[2].tolist()}
    text = json.dumps(golden, indent=1)
    Path(__file__).with_name("verification.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
