# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
WORKDIR /src
# Dependencies first, in a layer of their own: it is rebuilt only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -rf src
COPY config config
COPY migrations migrations
COPY src src
# Newer than the empty sources that the layer above was built from.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --bin meta-dispatch

# glibc and root certificates, no shell; runs as user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/meta-dispatch /usr/local/bin/meta-dispatch
# For `serve` on SQLite: mount a volume here that user 65532 may write to.
WORKDIR /home/nonroot
ENV META_DISPATCH__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
# The admin listener stays on the container's loopback; the binary itself asks it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["/usr/local/bin/meta-dispatch", "health"]
ENTRYPOINT ["/usr/local/bin/meta-dispatch"]
CMD ["serve"]
