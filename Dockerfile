# serein serve in a container.
#
#   docker build -t serein .                     # torch as the package index gives it: on x86 Linux with CUDA
#   docker build -t serein --build-arg TORCH_INDEX=URL .      # URL: PyTorch's index of CPU wheels, for a small image
#   docker run --read-only --tmpfs /tmp -v "$PWD/model:/model:ro" -v "$PWD/encoder:/encoder:ro" -p 8000:8000 serein
#
# For an NVIDIA card: docker run --gpus all ... serein serve /model --encoder /encoder --host 0.0.0.0 --device cuda

ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=
COPY . /source
WORKDIR /source
RUN python -m venv /opt/serein \
    && /opt/serein/bin/pip install --no-cache-dir --constraint constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} '.[serve]'

FROM ${BASE}
RUN useradd --system --no-create-home --uid 10001 serein
COPY --from=build /opt/serein /opt/serein
ENV PATH=/opt/serein/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HF_HOME=/tmp/hub TORCHINDUCTOR_CACHE_DIR=/tmp/torch
USER serein
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["serein"]
CMD ["serve", "/model", "--encoder", "/encoder", "--host", "0.0.0.0", "--port", "8000"]
