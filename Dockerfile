# The program alone, on Debian 12's C library, without a shell and not as root.
#
#   docker build -t meta-dispatch .
#   docker run --rm -p 127.0.0.1:8080:8080 -v meta-dispatch:/data meta-dispatch
#
# With nothing configured it is `serve` on an SQLite file in /data. For PostgreSQL and RabbitMQ see compose.yaml.

FROM rust:1.95-bookworm AS chef
RUN cargo install cargo-chef --locked --version "^0.1"
WORKDIR /build

# What the dependencies are; changes with Cargo.toml and Cargo.lock only.
FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=plan /build/recipe.json recipe.json
# The layer that holds the compiled dependencies: kept as long as the recipe is the same.
RUN cargo chef cook --profile dist --locked --bin meta-dispatch --recipe-path recipe.json
COPY . .
RUN cargo build --profile dist --locked --bin meta-dispatch && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/dist/meta-dispatch /usr/local/bin/meta-dispatch
COPY --from=build --chown=65532:65532 /data /data
WORKDIR /data
VOLUME /data
# In a container loopback is the container alone; who may reach these ports is decided when they are published.
ENV META_DISPATCH__HTTP__LISTEN=0.0.0.0:8080 \
    META_DISPATCH__ADMIN__LISTEN=0.0.0.0:9090
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/meta-dispatch", "health"]
ENTRYPOINT ["/usr/local/bin/meta-dispatch"]
CMD ["serve"]
