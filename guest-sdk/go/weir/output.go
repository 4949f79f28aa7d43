package weir

import (
	"encoding/json"
	"encoding/json/jsontext"
	jsonv2 "encoding/json/v2"
	"fmt"
)

// Emit emits a value as JSON. Events appear in the ledger when the
// invocation is committed, in the order of the calls, and never if it fails. A
// subject outside the [emit] table of handler.toml fails the invocation.
// Names of headers that begin with Nats- belong to the server.
func Emit(subject string, value any, headers ...Header) error {
	data, err := encode(value)
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

// encode is json.Marshal, maps by sorted keys, without its escapes for text that
// is put into HTML or JavaScript: other languages have none, and the same value
// should be the same bytes.
func encode(value any) ([]byte, error) {
	return jsonv2.Marshal(
		value,
		json.DefaultOptionsV1(),
		jsontext.EscapeForHTML(false),
		jsontext.EscapeForJS(false),
	)
}
