# lossd in stages: one installs, one lists what was installed, the last runs, without build tools and without root.
#
#   docker build -t lossd .                            torch for CPUs
#   docker build -t lossd --build-arg TORCH=cuda .     torch for CUDA, several GB larger
#
# Pinned:
#   the base image     by its digest, if PYTHON_IMAGE gives one: python:3.11-slim@sha256:...
#   Python packages    by version and hash, in requirements/, which `make lock` writes from constraints.txt
#   torch for CPUs     by version, in constraints.txt: its hash differs between indexes
#   torch for CUDA     by version and hash, with its requirements, in requirements/cuda.txt
# Names, versions and licences of all packages are in /opt/lossd/sbom.cdx.json (CycloneDX).
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# cpu or cuda
ARG TORCH=cpu
# An additional index for torch for CPUs; if empty, only the index that pip is configured with is used.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/lossd/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PYTHON=/opt/lossd/bin/python
RUN python -m venv --without-pip /opt/lossd
WORKDIR /src
COPY constraints.txt ./
# torch first: its layer is the largest and changes least. Only torch itself comes from its index.
RUN if [ "$TORCH" = cpu ]; then \
      pip install --no-compile --no-deps -c constraints.txt ${TORCH_CPU_INDEX:+--extra-index-url "$TORCH_CPU_INDEX"} torch; \
    fi
COPY requirements requirements
RUN pip install --no-compile --no-deps --require-hashes -r "requirements/$TORCH.txt" && \
    python -B -W ignore -c "import torch; assert bool(torch.version.cuda) == ('$TORCH' == 'cuda'), 'not for $TORCH: ' + torch.__version__" && \
    rm -rf /opt/lossd/lib/*/*/torch/include /opt/lossd/lib/*/*/torch/test /opt/lossd/lib/*/*/torch/bin/*[Tt]est*
COPY pyproject.toml README.md LICENSE ./
COPY service service
# Built by the setuptools pinned above; nothing else is downloaded.
RUN pip install --no-compile --no-index --no-deps --no-build-isolation . && pip check
# Bytecode of the modules that serving imports, a fifth of all: at run time the image may be read-only.
ENV PYTHONPYCACHEPREFIX=/opt/lossd/bytecode
RUN timeout 20 lossd serve --port 0 || test $? -eq 124

# A separate stage: of the tool, which is pinned by version only, the image contains just the document.
FROM build AS sbom
RUN python -m venv --without-pip /opt/sbom && \
    PIP_PYTHON=/opt/sbom/bin/python pip install -c constraints.txt cyclonedx-bom && \
    /opt/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      -o /opt/sbom/sbom.cdx.json /opt/lossd/bin/python

FROM ${PYTHON_IMAGE} AS run
ARG TORCH=cpu
# A volume of any user is mounted at /data. No program of the base image may be setuid, even if no-new-privileges is forgotten.
RUN mkdir -m 1777 /data && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=build /opt/lossd /opt/lossd
COPY --from=sbom /opt/sbom/sbom.cdx.json /opt/lossd/
ENV PATH=/opt/lossd/bin:$PATH \
    PYTHONPYCACHEPREFIX=/opt/lossd/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LOSSD_HOST=0.0.0.0 \
    LOSSD_PORT=8000 \
    LOSSD_DATA_DIR=/data \
    LOSSD_DEVICE=${TORCH} \
    PYTORCH_ALLOC_CONF=expandable_segments:True
# LOSSD_DEVICE: an image for CUDA must not fall back to the CPU in silence. PYTORCH_ALLOC_CONF: calls of many sizes
# do not fragment the memory of a GPU.
# A number, so that an orchestrator can verify that it is not root; any other works as well.
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=180s CMD ["lossd", "health"]
ENTRYPOINT ["lossd"]
CMD ["serve"]
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
# The commit that was built, and the address of its repository.
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title=lossd \
      org.opencontainers.image.description="Loss values, per-element losses and exact gradients over HTTP" \
      org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE \
      org.opencontainers.image.base.name=$PYTHON_IMAGE
