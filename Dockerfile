# syntax=docker/dockerfile:1
# lossd in two stages: one installs, the other runs, without pip's caches and without root.
#
#   docker build -t lossd .                              torch for CPUs
#   docker build -t lossd --build-arg TORCH=cuda .       torch for CUDA, several GB larger
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# cpu or cuda. Where the configured index serves only one of them, an index for the other is an argument too.
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/lossd
ENV PATH=/opt/lossd/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# torch first and by itself: its layer is the large one, and changes least
RUN if [ "$TORCH" = cuda ]; then pip install -c constraints.txt torch; \
    else pip install -c constraints.txt --extra-index-url "${TORCH_INDEX}/cpu" torch; fi
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN pip install -c constraints.txt . && python -m compileall -q /opt/lossd/lib/python3*/site-packages/service

FROM ${PYTHON_IMAGE} AS run
LABEL org.opencontainers.image.title=lossd \
      org.opencontainers.image.description="Loss values, per-element losses and exact gradients over HTTP" \
      org.opencontainers.image.licenses=MIT
COPY --from=build /opt/lossd /opt/lossd
ENV PATH=/opt/lossd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LOSSD_HOST=0.0.0.0 \
    LOSSD_PORT=8000
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["lossd", "health"]
ENTRYPOINT ["lossd"]
CMD ["serve"]
