# lossd in two stages: one installs, the other runs, without build tools and without root.
#
#   docker build -t lossd .                            torch for CPUs
#   docker build -t lossd --build-arg TORCH=cuda .     torch for CUDA, several GB larger
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# cpu or cuda
ARG TORCH=cpu
# Where torch for CPUs is, beside the index that pip is set up with, which is the only one if this is empty.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/lossd/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PYTHON=/opt/lossd/bin/python
RUN python -m venv --without-pip /opt/lossd
WORKDIR /src
COPY constraints.txt ./
# torch first: its layer is the large one, and changes least. Nothing but torch itself is from its index.
RUN if [ "$TORCH" = cpu ] && [ -n "$TORCH_CPU_INDEX" ]; then set -- --extra-index-url "$TORCH_CPU_INDEX"; fi; \
    pip install --no-compile --no-deps -c constraints.txt "$@" torch && \
    pip install --no-compile -c constraints.txt torch && \
    python -B -W ignore -c "import torch; assert bool(torch.version.cuda) == ('$TORCH' == 'cuda'), 'not for $TORCH: ' + torch.__version__" && \
    rm -rf /opt/lossd/lib/*/*/torch/include /opt/lossd/lib/*/*/torch/test /opt/lossd/lib/*/*/torch/bin/*[Tt]est*
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN pip install --no-compile -c constraints.txt '.[otel]'
# Bytecode of what serving imports, which is a fifth of what is installed: the image runs where it cannot be written.
ENV PYTHONPYCACHEPREFIX=/opt/lossd/bytecode
RUN timeout 20 lossd serve --port 0 || test $? -eq 124

FROM ${PYTHON_IMAGE} AS run
LABEL org.opencontainers.image.title=lossd \
      org.opencontainers.image.description="Loss values, per-element losses and exact gradients over HTTP" \
      org.opencontainers.image.licenses=MIT
COPY --from=build /opt/lossd /opt/lossd
ENV PATH=/opt/lossd/bin:$PATH \
    PYTHONPYCACHEPREFIX=/opt/lossd/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
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
