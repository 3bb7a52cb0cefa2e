#!/bin/sh
# The demo bundle from nothing: data, base network, super-resolution, bundle, engines, figures. From the repository root:
#
#     BASE_MINUTES=600 SR_MINUTES=60 sh bundles/make_demo.sh
#
# Every step goes on where it stopped: run it again for more minutes of training. All GPUs are used, else the CPU.
# The variant with attributes, from the same faces; super-resolution is the first bundle's:
#
#     ATTRIBUTES=1 BASE_MINUTES=120 sh bundles/make_demo.sh
set -eu

ATTRIBUTES=${ATTRIBUTES:-}             # 1: the variant with head pose and expression
FACES=${FACES:-60000}                  # generated faces, 5 % of them held out
STREAM=${STREAM:-}                     # a seed: train the base network on people made beside it instead, none twice
HELD_OUT=${HELD_OUT:-600}              # with STREAM, the people that are stored: the held-out ones
ROLLOUTS=${ROLLOUTS:-}                 # images per step that the network itself is generating, for any ID vector
BASE_MINUTES=${BASE_MINUTES:-60}       # of training the 64 px network in this call
SR_MINUTES=${SR_MINUTES:-15}           # of training super-resolution in this call
IDENTITY_LOSS=${IDENTITY_LOSS:-}       # else the preset's
START_FROM=${START_FROM:-${ATTRIBUTES:+bundles/demo}}  # a bundle whose weights new runs start from; else random weights
SEED=${SEED:-0}                        # of new runs
PEOPLE=${PEOPLE:-500}                  # held-out identities of the evaluation; 0 for none
RUNS=${RUNS:-runs/demo${ATTRIBUTES:+_attributes}}   # checkpoints
OUT=${OUT:-bundles/demo${ATTRIBUTES:+_attributes}}  # the bundle
PYTHON=${PYTHON:-.venv/bin/python}

devices=$("$PYTHON" - <<'PY'
import os, torch
gpus = torch.cuda.device_count()
print(gpus or len(os.sched_getaffinity(0)), "bf16" if gpus else "no", "" if gpus else "--cpu --threads 1")
PY
)
processes=${devices%% *}
rest=${devices#* }
precision=${rest%% *}
cpu=${rest#"$precision"}

train() { # stage, minutes, further options
    stage=$1 minutes=$2
    shift 2
    if [ -f "$RUNS/$stage/checkpoint.pt" ]; then
        set -- "$@" --resume --allow-data-change
    elif [ -n "$START_FROM" ]; then
        set -- "$@" --start-from "$START_FROM"
    fi
    # shellcheck disable=SC2086  # $cpu is several words
    OMP_NUM_THREADS=1 "$PYTHON" -m torch.distributed.run --nproc_per_node "$processes" -m id3pm train --stage "$stage" \
        --preset demo --data data/demo --out "$RUNS/$stage" --seed "$SEED" --precision "$precision" --max-minutes "$minutes" $cpu "$@"
}

"$PYTHON" export/face_models.py
stream=
if [ -n "$STREAM" ]; then
    "$PYTHON" -m id3pm demo-dataset --out data/held_out --count "$HELD_OUT" --held-out-only --workers "$(nproc)"
    stream="--data data/held_out --stream $STREAM"
fi
if [ -n "$ROLLOUTS" ]; then
    stream="$stream --rollouts $ROLLOUTS --rollout-loss 0.03 --rollout-centring 0.5 --altered-vectors 0.5 --identity-jitter 1.5"
fi
"$PYTHON" -m id3pm demo-dataset --out data/demo --count "$FACES" --workers "$(nproc)"
options="--sampler ddim --eta 1 --steps 10 --spacing logsnr --sr-sampler ddim --sr-eta 0 --sr-steps 6 --sr-consistency 1"
if [ -n "$ATTRIBUTES" ]; then
    "$PYTHON" -m id3pm measure-dataset --data data/demo --workers "$(nproc)"
    train base "$BASE_MINUTES" --attributes ${IDENTITY_LOSS:+--identity-loss "$IDENTITY_LOSS"}
    # shellcheck disable=SC2086  # $options is several words
    "$PYTHON" -m id3pm export-bundle --base "$RUNS/base" --sr "$START_FROM" --out "$OUT" --licence MIT $options
    "$PYTHON" export/build_engines.py --bundle "$OUT" --repository build/attributes
    "$PYTHON" -m id3pm sheet attributes --repository build/attributes
    exit
fi
# shellcheck disable=SC2086
train base "$BASE_MINUTES" ${IDENTITY_LOSS:+--identity-loss "$IDENTITY_LOSS"} $stream
train sr "$SR_MINUTES"
# shellcheck disable=SC2086
"$PYTHON" -m id3pm export-bundle --base "$RUNS/base" --sr "$RUNS/sr" --data-mean data/demo --out "$OUT" --licence MIT $options
DATA=data/demo OUT="$OUT" PYTHON="$PYTHON" sh bundles/make_latent.sh
if [ "$PEOPLE" -gt 0 ]; then
    "$PYTHON" export/build_engines.py --bundle "$OUT"
    "$PYTHON" -m id3pm evaluate identity --identities "$PEOPLE" --spacing logsnr --at-steps 10
    "$PYTHON" -m id3pm evaluate presets
    "$PYTHON" -m id3pm evaluate super-resolution --bundle "$OUT"
    "$PYTHON" -m id3pm evaluate card --bundle "$OUT" --identity out/evaluation/identity.json \
        --super-resolution out/evaluation/super_resolution.json
fi
