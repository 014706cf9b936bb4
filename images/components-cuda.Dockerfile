# The step that trains, on a GPU: settings.orchestration.train_image.
#   docker build --file images/components-cuda.Dockerfile --tag basketweave-components-cuda:0.1.0 .
# The node brings the driver; CUDA's libraries come with torch. Without a GPU it trains on the CPU.
FROM python:3.11.14-slim-bookworm AS build
# In a container nobody is asked anything, and nothing is kept for a next time.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_HTTP_TIMEOUT=300
RUN python -m pip install uv==0.9.28
WORKDIR /src
COPY pyproject.toml README.md hatch_build.py ./
COPY locks/cuda.txt locks/cuda.txt
COPY charts charts
COPY components components
COPY dags dags
COPY feature_repo feature_repo
COPY serving serving
RUN python -m venv --without-pip /opt/basketweave
# Every package in the version of the lock; of these the ones that the role needs. torch in the index's own build, CUDA's libraries with it.
RUN uv pip install --python /opt/basketweave/bin/python \
    --constraint locks/cuda.txt --build-constraint locks/cuda.txt ".[train,redis,s3,postgres]"
# The root file system is read-only at run time, so what Python compiles must be there.
RUN python -m compileall -q -j 0 /opt/basketweave/lib || true

FROM python:3.11.14-slim-bookworm
# DGL and scikit-learn are linked against it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/basketweave /opt/basketweave
ENV PATH=/opt/basketweave/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    BASKETWEAVE_HOME=/tmp/basketweave \
    DO_NOT_TRACK=true \
    DGLBACKEND=pytorch \
    FEAST_USAGE=False \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
USER 10001:10001
CMD ["python", "-m", "components.train", "--help"]
