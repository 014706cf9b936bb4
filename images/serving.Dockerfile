# The recommendation service: what the chart's Deployment runs.
#   docker build --file images/serving.Dockerfile --tag basketweave-serving:0.1.0 .
# Runs without rights and on a read-only root; it writes to BASKETWEAVE_HOME and /tmp alone.
FROM python:3.11.14-slim-bookworm AS build
# In a container nobody is asked anything, and nothing is kept for a next time.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_HTTP_TIMEOUT=300
# What ranks batches is in C.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m pip install uv==0.9.28
WORKDIR /src
COPY pyproject.toml README.md hatch_build.py ./
COPY locks/cpu.txt locks/cpu.txt
COPY charts charts
COPY components components
COPY dags dags
COPY feature_repo feature_repo
COPY serving serving
RUN python -m venv --without-pip /opt/basketweave
# Every package in the version of the lock; of these the ones that the role needs. torch in its CPU build.
RUN UV_TORCH_BACKEND=cpu uv pip install --python /opt/basketweave/bin/python \
    --constraint locks/cpu.txt --build-constraint locks/cpu.txt ".[serve,redis,s3]"
# The root file system is read-only at run time, so what Python compiles must be there.
RUN python -m compileall -q -j 0 /opt/basketweave/lib || true

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/basketweave /opt/basketweave
ENV PATH=/opt/basketweave/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    BASKETWEAVE_HOME=/tmp/basketweave \
    DO_NOT_TRACK=true \
    BENTOML_DO_NOT_TRACK=True \
    FEAST_USAGE=False
WORKDIR /tmp
USER 10001:10001
EXPOSE 3000
# Beyond its own pod the service listens only with API keys: BASKETWEAVE_SERVE__API_KEYS.
ENTRYPOINT ["python", "-m", "serving"]
CMD ["--host", "0.0.0.0", "--port", "3000"]
