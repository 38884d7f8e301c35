# The program alone, on Debian 12's C library, without a shell and not as root.
#
#   docker build -t meta-dispatch .
#   docker run --rm --read-only --tmpfs /tmp:size=512m,mode=1777 --cap-drop ALL --security-opt no-new-privileges \
#       -p 127.0.0.1:8080:8080 -v meta-dispatch:/data meta-dispatch
#
# With nothing configured it is `serve` on an SQLite file in /data. For PostgreSQL and RabbitMQ see compose.yaml.
#
# The tags below are for trials. The image of a release is built by `deploy/image build`, which takes both images by their
# digests from deploy/images.env, and refuses tags alone. Renew with `deploy/image renew`.
ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
WORKDIR /build
COPY . .
# The caches hold crates and compiled dependencies between two builds; no further tool is needed. The program's own source
# counts as changed, whatever its times say. `deploy/build` keeps the paths of this machine out of the program.
RUN --mount=type=cache,id=meta-dispatch-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=meta-dispatch-target,sharing=locked,target=/build/target \
    touch src/lib.rs src/main.rs && deploy/build && cp target/dist/meta-dispatch /meta-dispatch && mkdir /data

FROM ${BASE_IMAGE}
COPY --from=build /meta-dispatch /usr/local/bin/meta-dispatch
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
WORKDIR /data
VOLUME /data
# In a container loopback is the container alone; who may reach these ports is decided when they are published. The admin
# port answers /healthz and /readyz; /metrics only with META_DISPATCH__ADMIN__TOKEN_FILE.
ENV META_DISPATCH__HTTP__LISTEN=0.0.0.0:8080 \
    META_DISPATCH__ADMIN__LISTEN=0.0.0.0:9090
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/meta-dispatch", "health"]
ENTRYPOINT ["/usr/local/bin/meta-dispatch"]
CMD ["serve"]
