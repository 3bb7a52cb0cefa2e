# The served product: NVIDIA's Triton with this package, without torch, and engines that were built before.
#
#   python export/build_engines.py --target onnx-cuda             # on the host with the GPU; or cpu, tensorrt
#   docker build -t id3pm --build-arg RUNTIME=onnxruntime-gpu .   # or onnxruntime, openvino, tensorrt==10.11.0.33
#   docker run --rm --init --gpus all --shm-size=256m -p 127.0.0.1:8000-8002:8000-8002 id3pm
#
# All clients that reach the published ports may use the service. To publish them to others, give callers tokens (and TLS):
#   docker run ... -v $PWD/tokens.toml:/tokens.toml:ro -p 8000-8001:8000-8001 id3pm serve --host 0.0.0.0 --tokens /tokens.toml
#
# Without engines, which Kubernetes mounts or pulls: mkdir -p triton_repo, and --build-arg ENGINES=none
#
# Triton 26.07 (2.71.0, Ubuntu 24.04, Python 3.12, CUDA 13): a Python model whose process has died is not ready, from 26.01
# on (triton-inference-server/python_backend#423), a model is asked itself by `is_ready()`, from 26.03 on
# (python_backend#430), and then the whole server is not ready, from 26.04 on (core#473). onnxruntime-gpu 1.31 is built for
# CUDA 13, too. An older driver needs an older tag, which works as well: `id3pm serve` supervises Triton itself.
#
# Written against the sources and documentation of the base image; not built by our CI, which has no Docker.
ARG TRITON_TAG=26.07-py3
FROM nvcr.io/nvidia/tritonserver:${TRITON_TAG}

# What runs the engines; openvino for those of --precision bf16 and int8 on a CPU. A TensorRT plan loads only in the version that built it: name that one.
ARG RUNTIME=onnxruntime
# Further packages of PyPI; for `id3pm dataset run`: "pyarrow fsspec s3fs dlib-bin face-recognition-models onnx".
ARG PACKAGES=""
# What is copied to triton_repo: `built` are the engines of this checkout.
ARG ENGINES=built
# The base image's Python belongs to Ubuntu; in a container, nothing else needs it.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/id3pm
COPY pyproject.toml README.md ./
COPY id3pm ./id3pm
# onnxruntime runs the face models in any case; onnxruntime-gpu brings the same module and takes its place.
RUN case "${RUNTIME}" in \
        tensorrt*) runtimes="onnxruntime cuda-python ${RUNTIME}" ;; \
        openvino*) runtimes="onnxruntime ${RUNTIME}" ;; \
        *) runtimes="${RUNTIME}" ;; \
    esac \
    && python3 -m pip install ".[gateway,hub]" "numpy<2" "opencv-python-headless>=4.8,<4.12" ${runtimes} ${PACKAGES} \
    && python3 -c "import id3pm.serving.models.diffusion_stages, id3pm.serving.models.face_embedding, id3pm.serving.command, cv2, onnxruntime"

COPY triton_repo ./triton_repo
# Fails the build, not the start, when an engine is missing, damaged or of another bundle.
RUN if [ "${ENGINES}" = none ]; then rm -r triton_repo; else \
        python3 -c "from pathlib import Path; from id3pm.serving.launcher.preflight import check_engines; check_engines(Path('triton_repo'))"; \
    fi

USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --start-period=5m --interval=10s --timeout=5s \
    CMD ["python3", "-c", "import sys; from id3pm.serving.launcher.control import is_ready; sys.exit(not is_ready('127.0.0.1:8000'))"]
# Docker's SIGTERM must leave time for work in flight: docker stop --time 75. The base image's own entry point chooses the
# CUDA libraries that suit the driver, then becomes the command. With TLS, give --health-cmd a probe of your own.
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "id3pm"]
# Inside the container all addresses are the container's: what is published, and for which clients, is decided outside.
CMD ["serve", "--host", "0.0.0.0", "--insecure"]
