package weir

import (
	"fmt"

	"weir.dev/guest/internal/values"
)

// Emit emits a value as JSON. Events appear in the ledger when the
// invocation is committed, in the order of the calls, and never if it fails. A
// subject outside the [emit] table of handler.toml fails the invocation.
// Names of headers that begin with Nats- belong to the server.
func Emit(subject string, value any, headers ...Header) error {
	data, err := values.Encode(value)
	if err != nil {
		return fmt.Errorf("emitting on %s: %w", subject, err)
	}
	EmitBytes(subject, data, headers...)
	return nil
}

// EmitBytes emits bytes.
func EmitBytes(subject string, data []byte, headers ...Header) {
	calls().Emit(subject, headers, data)
}
