// SPDX-License-Identifier: Apache-2.0

// Package backendpb is generated from backend.proto. Backend authors use package
// backend; this one matters to those who write a backend in another language.
package backendpb

//go:generate sh generate.sh
