# ascseg for the CPU: docker build -t ascseg . && docker run --rm -v "$PWD:/data" ascseg predict photos --dataset kvasir
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/ascseg
ENV PATH=/opt/ascseg/bin:$PATH
# torch first, in its own layer, without CUDA: a tenth of the size. Where this index can't be reached, give another.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --index-url "$TORCH_INDEX" torch
COPY pyproject.toml README.md LICENSE weights_manifest.toml /src/
COPY ascseg_cli /src/ascseg_cli
RUN pip install /src && ascseg weights verify
# What only the building of packages needs.
RUN pip uninstall --yes pip && find /opt/ascseg -name __pycache__ -prune -exec rm -rf {} +

FROM python:3.12-slim
COPY --from=build /opt/ascseg /opt/ascseg
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin ascseg && mkdir --mode=1777 /cache
# The compiled kernels are kept in /cache, which any user may write to.
ENV PATH=/opt/ascseg/bin:$PATH ASCSEG_HOME=/cache ASCSEG_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["ascseg"]
CMD ["--help"]
