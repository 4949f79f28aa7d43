// Package export_wit_world is what generated code calls: the world's exports.
package export_wit_world

import (
	"weir.dev/guest/generated/weir_handler_types"
	types "weir.dev/guest/internal/wit/types"
)

type (
	Event   = weir_handler_types.Event
	Failure = weir_handler_types.Failure
	Outcome = types.Result[types.Unit, Failure]
)

// Handler is what package weir sets.
var Handler func(Event) Outcome

// Handle is called with each event.
func Handle(event Event) Outcome {
	return Handler(event)
}
