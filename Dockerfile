# Dubito in a container:
#
#   docker build --tag dubito .
#   docker run --publish 8000:8000 --volume dubito:/data --env DUBITO_API_KEY=... dubito
#
# A container listens on every address, and the server refuses any address but loopback without a
# key: it does not start before DUBITO_API_KEY is set.
FROM python:3.11-slim

# The package index to take torch from, such as that of its CPU build; empty: pip's own.
ARG TORCH_INDEX_URL=""

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    DUBITO_DATA_DIR=/data \
    NUMBA_CACHE_DIR=/data/compiled

WORKDIR /app

# torch goes first and alone: it is large, and nothing else may draw another build of it.
COPY constraints.txt ./
RUN pip install --no-deps -c constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch

COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY models models
RUN pip install -c constraints.txt '.[postgres]'

RUN useradd --system --uid 10001 --no-create-home dubito \
    && mkdir /data \
    && chown dubito:dubito /data
USER dubito
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]

CMD ["dubito", "serve", "--host", "0.0.0.0"]
