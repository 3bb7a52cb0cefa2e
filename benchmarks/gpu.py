"""Everything that has to be measured on a GPU, by one command, most valuable first.

    python benchmarks/gpu.py --minutes 10 --out DIR

Works from a checkout without installation, with PyTorch and numpy alone: `gpu_parts.fallbacks` stands in for light
packages that are missing, and parts that need more say so. What is missing is said first; `--wheels` brings it along:

    pip download --dest wheels array-api-compat pillow rich safetensors onnxscript        # where there is a network
    python benchmarks/gpu.py --wheels wheels --minutes 10 --out DIR                       # nothing is installed

Each part is a process of its own with a time limit: one that fails or
hangs does not stop the others. Results are written after every part: `gpu.json`, and `gpu.md` with the tables.
`--device cpu` runs the same parts with small networks, to test them.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDERS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "client" / "src")]
sys.path[:0] = FOLDERS

from gpu_parts import PARTS, fallbacks, part  # noqa: E402 - only now it can be found
from gpu_parts.tritonserver import why_no_triton  # noqa: E402
from gpu_parts.wheels import unpack  # noqa: E402

fallbacks.install()  # also in the processes that a part starts

SHARES = {
    "machine": 0.04,
    "parity": 0.08,
    "engines": 0.15,
    "rows": 0.07,
    "paper": 0.18,
    "served": 0.09,
    "load": 0.08,
    "sharing": 0.08,
    "training": 0.16,
    "bits": 0.04,
    "memory": 0.03,
}
"""Part -> its share of the time."""
WANTED = {
    "tensorrt": "TensorRT engines",
    "onnxscript": "TensorRT and onnxruntime engines that are built here",
    "cupy": "rows of TensorRT and onnxruntime engines on the device",
}
"""Module -> what cannot be measured without it."""
STOOD_IN = "nothing: gpu_parts.fallbacks stands in"
TRITON = "Triton in `served` and `load`: both are measured in process without it"


def say(text: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def missing() -> dict[str, str]:
    """What cannot be done here, by what it needs."""
    found = dict.fromkeys(fallbacks.missing(), STOOD_IN)
    found |= {name: use for name, use in WANTED.items() if importlib.util.find_spec(name) is None}
    why = why_no_triton()
    return found if why is None else {**found, f"tritonserver ({why})": TRITON}


def use_wheels(folder: Path, to: Path) -> list[str]:
    """Makes packages in wheels importable, here and for the parts; the names of wheels that do not fit."""
    left_out = unpack(folder, to)
    sys.path.insert(len(FOLDERS), str(to))
    FOLDERS.append(str(to))
    importlib.invalidate_caches()
    return left_out


def run_part(name: str, device: str, limit_s: float, out: Path) -> dict[str, Any]:
    """Runs a part in a process of its own; its result, or why there is none."""
    result = out / f"{name}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--part", name, "--device", device, "--minutes", str(limit_s / 60)]
    start = time.monotonic()
    log = out / f"{name}.log"
    with log.open("w") as output:
        try:
            path = os.pathsep.join([*FOLDERS, *filter(None, [os.environ.get("PYTHONPATH")])])  # for Triton's Python
            environment = {**os.environ, "ID3PM_GPU_RESULT": str(result), "PYTHONPATH": path}
            if device == "cpu":  # small networks: threads would only wait for each other
                environment.setdefault("OMP_NUM_THREADS", "1")
            code = subprocess.run(
                [*command, "--out", str(out)], stdout=output, stderr=output, timeout=limit_s, env=environment
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    found: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {"tables": []}
    found["seconds"] = time.monotonic() - start
    if code != 0:
        lines = log.read_text().strip().splitlines()
        found["failed"] = f"the limit of {limit_s:.0f} s" if code == -1 else (lines[-1] if lines else f"exit {code}")
    return found


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """All tables, and what failed."""
    text = []
    for name, result in results.items():
        text.append(f"## {name} ({result.get('seconds', 0.0):.0f} s)\n")
        if "failed" in result:
            text.append(f"Ended early: {result['failed']}\n")
        for lines in result.get("tables", []):
            keys = list(dict.fromkeys(key for line in lines for key in line))
            text.append("| " + " | ".join(keys) + " |\n|" + "---|" * len(keys))
            text += ["| " + " | ".join(str(line.get(key, "")) for key in keys) + " |" for line in lines]
            text.append("")
    return "\n".join(text) + "\n"


def main() -> None:
    """Runs all parts, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts (default: 10)")
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a test with small networks")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of what is not installed; unpacked into --out")
    parser.add_argument("--part", choices=list(PARTS), help="only this part, in this process")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part:
        from gpu_parts.report import Report  # with PyTorch

        part(given.part)(Report(Path(os.environ["ID3PM_GPU_RESULT"]), given.device, 60 * given.minutes))
        return
    if given.wheels:
        say("".join(f"{name}: not for this Python\n" for name in use_wheels(given.wheels, given.out / "packages")))
    absent = [{"missing": module, "for": use} for module, use in missing().items()]
    results: dict[str, dict[str, Any]] = {"missing": {"tables": [absent] if absent else []}}
    for name, share in SHARES.items():
        say(f"{name} ...")
        results[name] = run_part(name, given.device, 60 * given.minutes * share, given.out)
        say(f"  {results[name].get('failed', 'done')} after {results[name]['seconds']:.0f} s")
        (given.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (given.out / "gpu.md").write_text(markdown(results))


if __name__ == "__main__":
    main()
