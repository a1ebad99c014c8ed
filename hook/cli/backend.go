// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"os"

	"github.com/upsplice/upsplice/distro/osrelease"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/hook/worker"
	"github.com/upsplice/upsplice/plugins/host"
)

const defaultBackends = host.DefaultDir

// openBackend starts the backend of this distribution. Root starts it as the
// build user: it handles what comes from the network.
func (a *app) openBackend(ctx context.Context) (pipeline.Backend, error) {
	opt := host.Options{Dir: a.backendDir, Home: a.config.Cache}
	if a.config.Snapshot != "" {
		opt.Env = append(opt.Env, "UPSPLICE_SNAPSHOT="+a.config.Snapshot)
	}
	if os.Geteuid() == 0 {
		user, err := worker.Lookup(a.config.BuildUser)
		if err != nil {
			return nil, err
		}
		opt.Credential = &host.Credential{UID: user.UID, GID: user.GID}
	}
	var b *host.Backend
	var err error
	worker.Confined(func() { b, err = a.startBackend(ctx, opt) })
	var untrusted *host.UntrustedError
	if errors.As(err, &untrusted) {
		return nil, &outcome.Error{Outcome: outcome.Refused, Check: "backend", What: "starting the backend", Err: err, Remedy: "reinstall upsplice"}
	}
	if err != nil {
		return nil, &outcome.Error{Outcome: outcome.Failed, What: "starting the backend", Err: err}
	}
	return b, nil
}

func (a *app) startBackend(ctx context.Context, opt host.Options) (*host.Backend, error) {
	if a.config.Backend != "" {
		return host.Open(ctx, a.config.Backend, opt)
	}
	system, err := osrelease.Read(os.DirFS("/"))
	if err != nil {
		return nil, err
	}
	return host.OpenSystem(ctx, system, opt)
}
