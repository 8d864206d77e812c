# syntax=docker/dockerfile:1
# The daemon as a small image. Build: docker build -t sagad .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml build.rs ./
COPY proto ./proto
COPY sagas ./sagas
COPY benches ./benches
COPY src ./src
COPY barrier ./barrier
RUN cargo build --release --locked --bin sagad --bin sagactl

FROM debian:bookworm-slim
RUN groupadd --system --gid 10001 sagad \
 && useradd --system --uid 10001 --gid sagad --home-dir /var/lib/sagad --shell /usr/sbin/nologin sagad \
 && install -d -o sagad -g sagad -m 0750 /var/lib/sagad \
 && install -d -m 0755 /etc/sagad/sagas
COPY --from=build /src/target/release/sagad /src/target/release/sagactl /usr/local/bin/
COPY --from=build /src/sagas /etc/sagad/sagas
USER 10001:10001
VOLUME /var/lib/sagad
EXPOSE 7420 7421
# Inside a container the ports must be reachable from outside it, and there is no TLS yet: run it
# on a network that only the shop's services share.
ENV SAGAD_ALLOW_INSECURE=true
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s --retries=3 \
    CMD ["sagactl", "--quiet", "stats"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["sagad"]
CMD ["serve", "--data", "/var/lib/sagad", "--sagas", "/etc/sagad/sagas", "--grpc-addr", "0.0.0.0:7420", "--http-addr", "0.0.0.0:7421"]
