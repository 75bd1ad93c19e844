# Dubito in a container:
#
#   docker build --tag dubito .
#   docker run --read-only --tmpfs /tmp --publish 8000:8000 --volume dubito:/data --env DUBITO_API_KEY=... dubito
#
# A container listens on every address, and the server refuses any address but loopback without a
# key: it does not start before DUBITO_API_KEY is set, or `dubito keys` has made one in /data.
# It writes to /data and /tmp alone, and needs neither root nor capabilities.
#
#   TORCH_INDEX_URL  the package index to take torch from, such as that of its CPU build; empty: pip's own
#   EXTRAS           the optional parts to install, separated by commas
#
# `--target gpu` adds the C compiler that the kernels for a GPU are built with; `docker run --gpus all
# --env DUBITO_DEVICE=cuda` then.
ARG PYTHON=3.11-slim-trixie

FROM python:${PYTHON} AS build
ARG TORCH_INDEX_URL=""
ARG EXTRAS="postgres"
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# The build of the package fetches what draws on the page by npm, from the registry of npm.
COPY --from=node:24-trixie-slim /usr/local /opt/node
ENV PATH=/opt/node/bin:$PATH
RUN python -m venv --without-pip /opt/dubito && mkdir /data
WORKDIR /build
# torch goes first and alone: it is large, and nothing else may draw another build of it.
COPY constraints.txt ./
RUN pip --python /opt/dubito/bin/python install --no-deps -c constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
COPY pyproject.toml README.md LICENSE ./
COPY service/dubito service/dubito
COPY models models
COPY scripts/hatch_build.py scripts/
RUN pip --python /opt/dubito/bin/python install -c constraints.txt ".[$EXTRAS]"

FROM python:${PYTHON} AS base
LABEL org.opencontainers.image.title="dubito" \
      org.opencontainers.image.description="Serve PyTorch networks trained with dropout, with the uncertainty of every prediction." \
      org.opencontainers.image.licenses="Apache-2.0"
# The user has a number alone; what asks for its name and its home finds them here.
ENV PATH=/opt/dubito/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    USER=dubito \
    HOME=/tmp \
    TMPDIR=/tmp \
    NUMBA_CACHE_DIR=/data/compiled \
    TRITON_CACHE_DIR=/data/triton \
    DUBITO_HOST=0.0.0.0 \
    DUBITO_DATA_DIR=/data
COPY --from=build /opt/dubito /opt/dubito
COPY --from=build --chown=10001:10001 /data /data
COPY deploy/healthcheck.py /opt/dubito/healthcheck.py
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/dubito/healthcheck.py"]
CMD ["dubito", "serve"]

FROM base AS gpu
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

FROM base AS serve
