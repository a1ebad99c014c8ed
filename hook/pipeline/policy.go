// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"errors"

	"github.com/upsplice/upsplice/hook/config"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/report"
	"github.com/upsplice/upsplice/splice/build"
)

// policy is what the configuration says of updates, for the engine and for the
// report. A person who asks for a plan is answered though nothing goes live by
// itself.
func (p *Pipeline) policy() (build.Policy, report.Policy, error) {
	c := p.Config
	b := build.Policy{Allow: c.Allow, Deny: c.Deny, Fixes: c.Policy == config.Fixes}
	r := report.Policy{Policy: string(c.Policy), Allow: list(c.Allow), Deny: list(c.Deny), Modules: string(c.Modules)}
	if c.Modules == config.Loaded {
		loaded, err := p.Kernel.Modules()
		if err != nil {
			return b, r, failed("listing the loaded modules", err)
		}
		// Not nil, which would mean all of them.
		b.Modules, r.Loaded = list(loaded), loaded
	}
	return b, r, nil
}

func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// off refuses updates of a machine on which none is wanted.
func (p *Pipeline) off(what string) error {
	if p.Config.Policy != config.Off {
		return nil
	}
	return &outcome.Error{Outcome: outcome.Refused, Check: "policy", What: what,
		Err: errors.New(`the configuration says policy = "off"`)}
}
