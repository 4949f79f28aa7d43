// Package values turns Go's values into the bytes of events and cells, and back. The
// bytes are those that handlers in other languages write for the same value.
package values

import (
	"encoding/json"
	"encoding/json/jsontext"
	jsonv2 "encoding/json/v2"
	"fmt"
)

// Encode is json.Marshal, maps by sorted keys, without its escapes for text that
// is put into HTML or JavaScript: other languages have none, and the same value
// should be the same bytes.
func Encode(value any) ([]byte, error) {
	return jsonv2.Marshal(
		value,
		json.DefaultOptionsV1(),
		jsontext.EscapeForHTML(false),
		jsontext.EscapeForJS(false),
	)
}

// EncodeCell encodes what is to be written to a cell; what and name say in an error
// which one.
func EncodeCell(what, name string, value any) ([]byte, error) {
	bytes, err := Encode(value)
	if err != nil {
		return nil, fmt.Errorf("writing %s %q: %w", what, name, err)
	}
	return bytes, nil
}

// DecodeCell is the value that a cell holds; the zero value where there is none.
func DecodeCell[T any](what, name string, bytes []byte, there bool) (value T, err error) {
	if !there {
		return value, nil
	}
	if err := json.Unmarshal(bytes, &value); err != nil {
		var zero T
		return zero, fmt.Errorf("reading %s %q: %w", what, name, err)
	}
	return value, nil
}
