# An image for --backend=kubernetes:
#   docker build -t registry/callsheet:1 --build-arg PYTHON=3.12 .
# Its Python must be that of the machine that submits. For accelerators add
# --build-arg JAX='jax[cuda12]' or 'jax[tpu]'. A program's own modules go into an
# image made from this one: FROM registry/callsheet:1, and COPY them.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG JAX=jax
COPY . /tmp/callsheet
RUN pip install --no-cache-dir --compile /tmp/callsheet "${JAX}" \
  && rm -rf /tmp/callsheet

RUN useradd --uid 1000 --create-home callsheet
USER 1000
WORKDIR /home/callsheet

ENTRYPOINT ["callsheet"]
