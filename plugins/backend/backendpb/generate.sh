#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Regenerates the Go code in the directory given, by default this one. The
# generators are pinned in go.mod.
set -eu
cd "$(dirname "$0")"
out=$(realpath "${1:-.}")
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
PATH="$bin:$PATH" protoc --go_out="$out" --go_opt=paths=source_relative \
	--go-grpc_out="$out" --go-grpc_opt=paths=source_relative backend.proto
# The version of protoc differs between systems and would make a needless difference.
sed -i -E 's|^(// (-?[ \t]*)protoc +).*|\1(any)|' "$out/backend.pb.go" "$out/backend_grpc.pb.go"
