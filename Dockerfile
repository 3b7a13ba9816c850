# ascseg for the CPU, as docs/pipelines.md uses it:
#   docker build -t ascseg .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" ascseg predict photos --dataset kvasir
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/ascseg
ENV PATH=/opt/ascseg/bin:$PATH
# torch in a layer of its own. With --build-arg TORCH_INDEX=URL, the index of CPU-only builds that PyTorch's site names,
# the image is a fraction of the size; without, pip's own choice may bring CUDA along.
ARG TORCH_INDEX=
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE weights_manifest.toml /src/
COPY examples /src/examples
COPY ascseg_cli /src/ascseg_cli
RUN pip install /src && ascseg weights verify
# What only building needs: pip, torch's C++ headers. Compiled Python stays: the command starts seconds sooner.
RUN pip uninstall --yes pip && rm -r /opt/ascseg/lib/python3.12/site-packages/torch/include

FROM python:3.12-slim
COPY --from=build /opt/ascseg /opt/ascseg
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin ascseg && mkdir --mode=1777 /cache
# The compiled kernels are kept in /cache, which any user may write to.
ENV PATH=/opt/ascseg/bin:$PATH ASCSEG_HOME=/cache ASCSEG_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["ascseg"]
CMD ["--help"]
