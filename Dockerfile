# The binary, and nothing else: static, not root. `docker build .` compiles it; --build-arg BINARY=prebuilt takes dist/quorate as it is,
# which needs no registry and no network.
ARG GO_IMAGE=golang:1.26-bookworm
ARG BINARY=build

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/quorate/quorate/cli.version=${VERSION}" -o /quorate ./cmd/quorate

FROM scratch AS prebuilt
COPY dist/quorate /quorate

FROM ${BINARY} AS binary

FROM scratch
COPY --from=binary /quorate /quorate
USER 65532:65532
WORKDIR /var/lib/quorate
ENV QUORATE_STATE_DIR=/var/lib/quorate
VOLUME /var/lib/quorate
ENTRYPOINT ["/quorate"]
CMD ["help"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["/quorate", "check", "--ready"]
