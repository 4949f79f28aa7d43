// Package weir is for writing Weir handlers in Go.
//
// A handler is one function. It is called with one event at a time, in the order
// of that event's key; whatever it does is committed as a whole when it returns
// nil, and not at all when it does not.
//
//	package main
//
//	import "weir.dev/guest/weir"
//
//	func init() { weir.Handle(count) }
//
//	func main() {}
//
//	func count(e *weir.Event) error {
//		n, err := weir.Cell[uint64]("n").Update(func(n *uint64) { *n++ })
//		if err != nil {
//			return err
//		}
//		return weir.Emit("counts."+weir.SubjectToken(e.Key), n)
//	}
//
// What there is:
//
//   - what happened: [Event], its subject, key, time, headers, [Event.JSON]
//   - remembering: [Cell] and [Get], [Set], [Delete], [Cells], cells of the event's key
//   - what keys share: package shared, cells and locks of all keys and handlers
//   - telling others: [Emit], [EmitBytes], events that appear when this one is committed
//   - doing it later: [SetTimer], [After], [CancelTimer], durable and per key
//   - settings: [Config], [ConfigOr], the [config] table of handler.toml
//   - telling the operator: log/slog, which goes to the handler's log
//   - failing: [Retry], [Reject]
//   - unit tests, without Wasm or NATS: package weirtest
//
// # What a handler can rely on
//
// It sees its event, its cells and its configuration, and nothing else: no
// files, no network, no clock but the event's time. The same input gives the
// same effects, which is what makes it safe to run an event again after a
// crash. Keep it so: what must survive belongs in a cell, never in a variable of the
// package; and the order of a map belongs in nothing that is written (range over
// sorted keys, as encoding/json does).
package weir

import (
	"time"

	"weir.dev/guest/internal/host"
)

// Handle makes f the handler of this component. Call it in an init function: main
// is never called.
func Handle(f func(*Event) error) {
	if f == nil {
		panic("weir.Handle: the handler is nil")
	}
	if handler != nil {
		panic("weir.Handle: called twice; a component has one handler")
	}
	handler = f
}

var (
	handler func(*Event) error

	// now is the time of the event being handled.
	now time.Time
)

// Invoke calls a handler with an event on behalf of a host. It is for package
// weirtest.
func Invoke(calls host.Calls, shared host.Shared, f func(*Event) error, e *Event) error {
	host.Current, host.CurrentShared, now = calls, shared, e.Time
	defer func() { host.Current, host.CurrentShared = nil, nil }()
	return f(e)
}

// calls is who runs the handler.
func calls() host.Calls {
	if host.Current == nil {
		panic("weir: called outside of a handler; in a test, call the handler by weirtest")
	}
	return host.Current
}
