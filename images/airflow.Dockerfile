# Airflow with our DAGs: its scheduler, DAG processor, API server and workers.
#   docker build --file images/airflow.Dockerfile --tag basketweave-airflow:0.1.0 .
# For mode 'kubernetes': steps run in their own images, and none of their libraries are here.
FROM python:3.11.14-slim-bookworm AS build
# In a container nobody is asked anything, and nothing is kept for a next time.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_HTTP_TIMEOUT=300
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
# Every package in the version of the lock; of these the ones that the role needs.
RUN uv pip install --python /opt/basketweave/bin/python \
    --constraint locks/cpu.txt --build-constraint locks/cpu.txt ".[airflow,postgres,s3]"
# The root file system is read-only at run time, so what Python compiles must be there.
RUN python -m compileall -q -j 0 /opt/basketweave/lib || true

FROM python:3.11.14-slim-bookworm
# The user and the folder that the official chart expects.
RUN useradd --uid 50000 --gid 0 --no-create-home --home-dir /opt/airflow airflow \
    && install --directory --owner 50000 --group 0 --mode 0775 /opt/airflow /opt/airflow/logs
COPY --from=build /opt/basketweave /opt/basketweave
ENV PATH=/opt/basketweave/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    BASKETWEAVE_HOME=/tmp/basketweave \
    DO_NOT_TRACK=true \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/basketweave/lib/python3.11/site-packages/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
WORKDIR /tmp
USER 50000:0
# The official chart gives each container its command: airflow scheduler, airflow api-server, …
CMD ["airflow", "version"]
