# Konkyo as a container, in two targets:
#   cpu   ONNX Runtime on the CPU, no torch
#   cuda  torch and ONNX Runtime on CUDA
# docs/container.md says how they are built and run.

# Exact tags. Where a registry shows the digest, pin that: NAME:TAG@sha256:...
ARG CPU_BASE=debian:bookworm-20260824-slim
ARG CUDA_BASE=nvidia/cuda:13.2.0-base-ubuntu24.04


# Versions of system packages are the distribution's at the time of the build: a pinned one is gone
# from its servers with the next security update. No program may make its caller root.
FROM ${CPU_BASE} AS cpu-python
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +


# An environment without pip, filled from outside by the pip of another one. An index other than the
# public one comes as a secret: --secret id=pip.conf,src=pip.conf
FROM cpu-python AS cpu-dependencies
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/konkyo
ENV PIP_CONSTRAINT=/build/constraints.txt \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY pyproject.toml constraints.txt ./
# On x86_64 the project asks for the ONNX Runtime with CUDA, which takes 0.5 GB more and is of no use
# here. pip cannot replace a dependency, so this image has the project ask for the plain one.
RUN sed --in-place --regexp-extended '/"onnxruntime-gpu/d; s/("onnxruntime>[^;"]*);[^"]*"/\1"/' pyproject.toml \
    && python3 -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
e = p["optional-dependencies"]; print(*p["dependencies"], *e["otel"], *e["postgresql"], sep="\n")' \
    > requirements.txt
# Bytecode is made once, and is valid whatever happens to the dates of files.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/konkyo/bin/python install --no-compile --requirement requirements.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/konkyo/lib


FROM cpu-dependencies AS cpu-build
COPY README.md LICENSE ./
COPY src src
# Into a tree of its own, so that the sources are one layer and what they depend on another.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/konkyo/bin/python install --no-compile --no-deps --root /layer . \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /layer /layer


FROM cpu-python AS cpu
COPY --from=cpu-dependencies /opt/konkyo /opt/konkyo
COPY --from=cpu-build /layer/opt/konkyo /opt/konkyo
# Threads of a forward pass are KONKYO_THREADS; those of numpy would only take memory.
ENV PATH=/opt/konkyo/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1 \
    ORT_DISABLE_TELEMETRY=1 \
    KONKYO_HOST=0.0.0.0 \
    KONKYO_PORT=8000
# A number, and no name, so that a cluster can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["konkyo", "health"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="konkyo" \
      org.opencontainers.image.description="Serves image classifiers that show why they decided: ONNX Runtime on the CPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["konkyo"]
CMD ["serve"]


FROM ${CUDA_BASE} AS cuda-python
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +


FROM cuda-python AS cuda-dependencies
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/konkyo
ENV PIP_CONSTRAINT=/build/constraints.txt \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
e = p["optional-dependencies"]; print(*p["dependencies"], *e["cuda"], *e["torch"], *e["otel"], *e["postgresql"], sep="\n")' \
    > requirements.txt
# Some of what torch tests itself with is in the syntax of later versions of Python.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/konkyo/bin/python install --no-compile --requirement requirements.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -x /torch/testing/_internal/ /opt/konkyo/lib


FROM cuda-dependencies AS cuda-build
COPY README.md LICENSE ./
COPY src src
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/konkyo/bin/python install --no-compile --no-deps --root /layer . \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /layer /layer


FROM cuda-python AS cuda
COPY --from=cuda-dependencies /opt/konkyo /opt/konkyo
COPY --from=cuda-build /layer/opt/konkyo /opt/konkyo
ENV PATH=/opt/konkyo/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    KONKYO_HOST=0.0.0.0 \
    KONKYO_PORT=8000
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["konkyo", "health"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="konkyo" \
      org.opencontainers.image.description="Serves image classifiers that show why they decided: torch and ONNX Runtime on CUDA" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["konkyo"]
CMD ["serve"]
