package weir

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"weir.dev/guest/internal/host"
)

// Event is one JetStream message of a source, or a timer that fired.
type Event struct {
	// ID is stable and unique, "<stream>:<sequence>": the same in every attempt, and
	// so a good idempotency key for whatever the handler emits.
	ID string
	// Stream that the event is stored in, and its sequence there.
	Stream   string
	Sequence uint64
	// Subject it was published on.
	Subject string
	// Key it belongs to, as [key] of handler.toml says. State, timers and order
	// are per key.
	Key string
	// Time when the stream stored it, in UTC. The only clock there is.
	Time time.Time
	// Timer is the timer's name, if this is a timer that fired, and empty if not.
	Timer string
	// Headers in the order of the message.
	Headers []Header
	// Data is the payload.
	Data []byte
}

// Header is one header of a message. A name may occur more than once.
type Header = host.Header

// Header returns the first header of that name, which is compared without regard
// to case, and whether there is one.
func (e *Event) Header(name string) (string, bool) {
	for _, header := range e.Headers {
		if strings.EqualFold(header.Name, name) {
			return header.Value, true
		}
	}
	return "", false
}

// JSON reads the payload into what v points to. What cannot be read is a
// rejection: the same bytes will not read better next time.
func (e *Event) JSON(v any) error {
	if err := json.Unmarshal(e.Data, v); err != nil {
		return Reject(fmt.Errorf("reading the event: %w", err))
	}
	return nil
}
