# The operator's image: its program, the libraries of Ceph that it loads, and what these need. No shell, no package manager.
# It is built for amd64 and arm64 on either, without emulation; `docker build .` is all there is to it.

# The version of rust-toolchain.toml.
FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-trixie AS program
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --locked cargo-auditable --version 0.7.7
RUN case $TARGETARCH in \
        amd64) arch=x86_64 gcc=gcc-x86-64-linux-gnu page=12 ;; \
        # Kernels with pages of 64 KiB refuse an allocator that was made for smaller ones.
        arm64) arch=aarch64 gcc=gcc-aarch64-linux-gnu page=16 ;; \
        *) echo "no such architecture: '$TARGETARCH'" >&2; exit 1 ;; \
    esac \
    && if [ $arch != "$(uname -m)" ]; then \
        rustup target add $arch-unknown-linux-gnu && cross="$gcc libc6-dev-$TARGETARCH-cross"; \
    fi \
    && apt-get update && apt-get install --yes --no-install-recommends make $cross \
    && echo "export JEMALLOC_SYS_WITH_LG_PAGE=$page" \
        "CARGO_BUILD_TARGET=$arch-unknown-linux-gnu" \
        "CARGO_TARGET_$(echo $arch | tr a-z A-Z)_UNKNOWN_LINUX_GNU_LINKER=$arch-linux-gnu-gcc" >/target.env
WORKDIR /src
COPY . .
ARG SOURCE_DATE_EPOCH=0
# Cargo goes by the time of files, and these may be older than what was built from others and is in the cache.
# The list of crates that it consists of is part of the program: scanners of images find it, and `cargo audit bin` does.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    . /target.env \
    && find crds operator -type f -exec touch {} + \
    && cargo auditable build --locked --release --package shoal-operator \
    && cp target/$CARGO_BUILD_TARGET/release/shoal /shoal \
    && touch --date=@$SOURCE_DATE_EPOCH /shoal

# The newest supported Ceph speaks to no older library than its own, and this suite has that. Newer libraries speak to older Ceph.
FROM --platform=$BUILDPLATFORM debian:forky-slim AS root
ARG TARGETARCH
ARG SOURCE_DATE_EPOCH=0
# Packages are unpacked and not installed: their scripts want a shell. As in other images of that kind, /var/lib/dpkg/status.d has what
# scanners look for. Left out are packages that the libraries depend on for their scripts' or for other programs' sake.
RUN mkdir -p /packages/partial /image/var/lib/dpkg/status.d \
    && apt="-o APT::Architecture=$TARGETARCH -o APT::Architectures=$TARGETARCH -o Dir::State::status=/dev/null" \
    && apt-get $apt update \
    && apt-get $apt install --yes --no-install-recommends --download-only -o Dir::Cache::archives=/packages \
        base-files libcephfs2 librados2 systemd-standalone-sysusers \
    && rm -f /packages/libc-gconv-modules-extra_* /packages/mawk_* /packages/systemd-standalone-sysusers_* \
    && for package in /packages/*.deb; do \
        dpkg-deb --extract $package /image \
        && dpkg-deb --field $package >/image/var/lib/dpkg/status.d/$(dpkg-deb --field $package Package) \
        || exit 1; \
    done \
    && cd /image \
    && find usr/share -mindepth 1 -maxdepth 1 ! -name common-licenses ! -name doc -exec rm -r {} + \
    && find usr/share/doc -type f ! -name copyright -delete \
    && echo 'hosts: files dns' >etc/nsswitch.conf \
    && echo 'root:x:0:0::/root:/sbin/nologin' >etc/passwd && echo 'root:x:0:' >etc/group \
    && echo 'shoal:x:65532:65532::/:/sbin/nologin' >>etc/passwd && echo 'shoal:x:65532:' >>etc/group \
    && find . -depth -exec touch --no-dereference --date=@$SOURCE_DATE_EPOCH {} +

FROM scratch
LABEL org.opencontainers.image.title=shoal \
    org.opencontainers.image.description="Self-service shared file systems for Kubernetes" \
    org.opencontainers.image.licenses=Apache-2.0
COPY --from=root /image /
COPY --from=program /shoal /usr/bin/shoal
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/shoal"]
