// Counts the events of each key, and says when a key has been quiet for a minute.
package main

import (
	"encoding/json"
	"time"

	"weir.dev/guest/weir"
)

const (
	// quietAfter its first event a key is called quiet.
	quietAfter = time.Minute
	quietTimer = "quiet"
)

const count = weir.Cell[uint64]("count")

type counted struct {
	Key   string `json:"key"`
	Count uint64 `json:"count"`
}

type quiet struct {
	Key   string `json:"key"`
	Quiet bool   `json:"quiet"`
}

func init() { weir.Handle(handle) }

// main is never called; the compiler wants it.
func main() {}

func handle(e *weir.Event) error {
	subject := "counts." + weir.SubjectToken(e.Key)
	if e.Timer == quietTimer {
		return weir.Emit(subject, quiet{e.Key, true})
	}
	var data json.RawMessage
	if err := e.JSON(&data); err != nil {
		return err // a rejection: the event becomes a dead letter
	}
	n, err := count.Update(func(n *uint64) { *n++ })
	if err != nil {
		return err // any other error is retried
	}
	if n == 1 {
		weir.After(quietTimer, quietAfter)
	}
	return weir.Emit(subject, counted{e.Key, n})
}
