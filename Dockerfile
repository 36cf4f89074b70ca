# syntax=docker/dockerfile:1
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o / ./cmd/...

# Both iptables variants, ipset and nft, as the host may need either. Sallyport
# starts them directly; no shell is needed at run time.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends iptables ipset nftables \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /sallyport /sallyport-cni /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/sallyport"]
