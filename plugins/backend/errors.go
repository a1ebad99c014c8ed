// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/upsplice/upsplice/plugins/backend/backendpb"
)

// Kind of an Error. Kinds survive the wire.
type Kind string

const (
	NotFound    Kind = "not found"
	Unavailable Kind = "unavailable"
	Corrupt     Kind = "corrupt"
	NoSpace     Kind = "no space"
	Unsupported Kind = "unsupported"
	Internal    Kind = "internal"
)

// Error is what backends return.
type Error struct {
	Kind   Kind
	What   string // the thing: a package, a URL, a file
	Detail string
	Remedy string // what the administrator can do, may be empty
}

func (e *Error) Error() string {
	s := string(e.Kind) + ": " + e.What
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Is makes errors.Is(err, &Error{Kind: k}) test the kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && (t.What == "" || t.What == e.What)
}

// The gRPC code says roughly the same as the kind, for those who look at the
// traffic with gRPC's own tools.
var codeOf = map[Kind]codes.Code{
	NotFound:    codes.NotFound,
	Unavailable: codes.Unavailable,
	Corrupt:     codes.DataLoss,
	NoSpace:     codes.ResourceExhausted,
	Unsupported: codes.Unimplemented,
	Internal:    codes.Internal,
}

// maxErrorText limits each text of an error on the wire, in bytes: a status
// travels in HTTP headers, which have limits of their own.
const maxErrorText = 1000

// toStatus turns a backend's error into what goes over the wire.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "deadline exceeded")
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Kind: Internal, What: "backend", Detail: err.Error()}
	}
	code, ok := codeOf[e.Kind]
	if !ok {
		code = codes.Internal
	}
	detail := &pb.ErrorDetail{Kind: string(e.Kind), What: wireText(e.What), Detail: wireText(e.Detail), Remedy: wireText(e.Remedy)}
	st, werr := status.New(code, wireText(e.Error())).WithDetails(detail)
	if werr != nil {
		return status.Error(code, wireText(e.Error()))
	}
	return st.Err()
}

func wireText(s string) string {
	if len(s) > maxErrorText {
		s = s[:maxErrorText] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// fromStatus is the reverse. An error that carries no detail did not come from
// the backend's code but from the connection or from gRPC.
func fromStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cerr := ctx.Err(); cerr != nil {
		return context.Cause(ctx)
	}
	st := status.Convert(err)
	for _, d := range st.Details() {
		if e, ok := d.(*pb.ErrorDetail); ok {
			kind := Kind(e.GetKind())
			if _, known := codeOf[kind]; !known {
				kind = Internal
			}
			return &Error{Kind: kind, What: e.GetWhat(), Detail: e.GetDetail(), Remedy: e.GetRemedy()}
		}
	}
	switch st.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Unimplemented:
		return &Error{Kind: Unsupported, What: "backend", Detail: st.Message()}
	case codes.Unavailable:
		return &Error{Kind: Internal, What: "backend", Detail: "its process ended or closed the connection: " + st.Message()}
	}
	return &Error{Kind: Internal, What: "backend", Detail: st.Message()}
}
