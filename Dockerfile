# promptseg for CPUs: `make docker` builds it, docs/offline.md tells how to run it.

FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
# For CPUs alone: the wheels of the package index bring gigabytes for NVIDIA's cards.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch torchvision
# More of promptseg, such as --build-arg EXTRAS=[app,serve].
ARG EXTRAS=""
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)${EXTRAS}"
RUN useradd --create-home promptseg
USER promptseg
WORKDIR /work
ENTRYPOINT ["promptseg"]
CMD ["--help"]
