// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
)

// Serve is the main function of a backend: it serves impl to the host that
// started the process, and returns when the host is done with it. With the
// argument "describe" it prints who the backend is, as JSON, and serves nothing.
func Serve(impl Backend) {
	if len(os.Args) > 1 {
		os.Exit(command(impl, os.Args[1:], os.Stdout, os.Stderr))
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: Handshake,
		Plugins:         Plugins(impl),
		GRPCServer:      NewServer,
		Logger: hclog.New(&hclog.LoggerOptions{
			Level: hclog.Warn, Output: os.Stderr, JSONFormat: true,
		}),
	})
}

// described is the form of `BACKEND describe`.
type described struct {
	Contract int      `json:"contract"`
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Systems  []string `json:"systems"`
}

// describeTimeout bounds what has to be answered without any work.
const describeTimeout = 10 * time.Second

func command(impl Backend, args []string, stdout, stderr io.Writer) int {
	if len(args) != 1 || args[0] != "describe" {
		fmt.Fprintln(stderr, "usage: BACKEND [describe]; upsplice starts it without an argument")
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), describeTimeout)
	defer cancel()
	d, err := impl.Describe(ctx)
	if err == nil {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(described{Contract: Version, Name: d.Name, Version: d.Version, Systems: d.Systems})
	}
	if err != nil {
		fmt.Fprintln(stderr, "describing the backend:", err)
		return 1
	}
	return 0
}
