# Trains in a container, on the CPU unless told otherwise:
#   docker build -t llm-jax .
#   docker run --rm --init -v "$PWD:/training" --user "$(id -u):$(id -g)" llm-jax train first
# On NVIDIA GPUs (jax[cuda13] brings CUDA itself; the host needs the driver and NVIDIA's container toolkit):
#   docker build -t llm-jax-cuda --build-arg EXTRA=cuda .
#   docker run --rm --init --gpus all -v "$PWD:/training" --user "$(id -u):$(id -g)" llm-jax-cuda train first
# Runs, prepared texts and compiled programs lie in the mounted folder, so the same command resumes there.
FROM python:3.12-slim

ARG EXTRA=""

WORKDIR /opt/llm_jax
# Every package at the version and with the hash that the lock file names.
COPY requirements/py312.txt requirements/py312.txt
RUN pip install --no-cache-dir --require-hashes -r requirements/py312.txt
COPY . .
RUN pip install --no-cache-dir --no-build-isolation ".${EXTRA:+[$EXTRA]}" \
    && useradd --create-home --uid 1000 trainer \
    && mkdir /training \
    && chown trainer /training

USER trainer
WORKDIR /training
ENV XDG_CACHE_HOME=/training/.cache
# `docker stop` sends SIGTERM: the step in hand is finished and saved. `docker stop -t 60` gives it time.
ENTRYPOINT ["llm-jax"]
CMD ["--help"]
