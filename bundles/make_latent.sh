#!/bin/sh
# Principal axes and custom directions of a bundle's ID vectors, from a data set with them. From the repository root:
#
#     DATA=data/demo OUT=bundles/demo sh bundles/make_latent.sh
set -eu

DATA=${DATA:-data/demo}   # made by id3pm demo-dataset; head pose and expression are measured on it first
OUT=${OUT:-bundles/demo}  # the bundle
PYTHON=${PYTHON:-.venv/bin/python}

direction() {
    "$PYTHON" -m id3pm latent fit-direction "$DATA" --out "$OUT/latent/directions.npz" --attribute "$@"
}

"$PYTHON" -m id3pm measure-dataset --data "$DATA" --workers "$(nproc)"
"$PYTHON" -m id3pm latent fit-pca "$DATA" --out "$OUT/latent/pca.npz"
rm -f "$OUT/latent/directions.npz"
direction cheek_brightness
direction hair_brightness --orthogonal-to cheek_brightness # else it makes the cheeks as dark as it makes hair bright
direction length
direction brows --label "height of the brows, share of the range seen" --low "low brows" --high "high brows"
direction smile --label "smile, share of the range seen" --low serious --high smiling
direction mouth_open --label "opening of the mouth, share of the range seen" --low closed --high open
