# Tramontane on the CPU backend. From the root of the tree:
#   docker build -f docker/cpu.Dockerfile -t tramontane:cpu .
#   docker run --rm -p 127.0.0.1:8080:8080 -v /path/to/models:/models:ro tramontane:cpu --model /models/NAME
FROM debian:12-slim AS build
WORKDIR /src
# The script alone first: the packages stay cached while sources change.
COPY script/bootstrap script/bootstrap
RUN script/bootstrap serve && rm -rf /var/lib/apt/lists/*
COPY CMakeLists.txt CMakePresets.json ./
COPY config config
COPY tokenizer tokenizer
COPY engine engine
COPY cpu cpu
COPY server server
RUN cmake --preset serve && cmake --build --preset serve --target tramontane

FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends libicu72 libsentencepiece0 libspdlog1.10 libfmt9 libssl3 ca-certificates curl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home tramontane
COPY --from=build /src/build/serve/tramontane /usr/local/bin/tramontane
COPY LICENSE /usr/share/doc/tramontane/LICENSE
USER tramontane
VOLUME /models
EXPOSE 8080
# The container's own network: reachable from outside only by a published port.
ENV TRAMONTANE_HOST=0.0.0.0
# Loading a large model takes minutes; until then "not ready" is no fault.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m CMD curl -fsS http://127.0.0.1:8080/health/ready
STOPSIGNAL SIGTERM
ENTRYPOINT ["tramontane", "serve"]
