package weir

import (
	"fmt"
	"math"
	"time"

	"weir.dev/guest/internal/values"
)

// SetTimer sets a durable timer of the event's key. It fires as an event of that
// key, in order with all the others, whose Timer is the name; data is its
// payload. One of the same name is replaced, and one that is due already fires at once.
// Both happen with the commit, so a timer that was cancelled does not fire.
func SetTimer(name string, at time.Time, data []byte) {
	calls().SetTimer(name, unixNanoseconds(at), data)
}

// SetTimerJSON sets a timer whose event carries a value as JSON.
func SetTimerJSON(name string, at time.Time, value any) error {
	data, err := values.Encode(value)
	if err != nil {
		return fmt.Errorf("setting timer %q: %w", name, err)
	}
	SetTimer(name, at, data)
	return nil
}

// After sets a timer this long after the event being handled was stored.
func After(name string, delay time.Duration) {
	SetTimer(name, now.Add(delay), nil)
}

// CancelTimer removes a timer, if there is one.
func CancelTimer(name string) {
	calls().CancelTimer(name)
}

// TimerDue returns when the timer of that name is due, and whether it is set.
func TimerDue(name string) (time.Time, bool) {
	at, set := calls().TimerDue(name)
	if !set {
		return time.Time{}, false
	}
	return fromUnixNanoseconds(at), true
}

// unixNanoseconds stops at 1970 and at 2262, where Go's nanoseconds end.
func unixNanoseconds(at time.Time) uint64 {
	switch seconds := at.Unix(); {
	case seconds < 0:
		return 0
	case seconds >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	default:
		return uint64(at.UnixNano())
	}
}

func fromUnixNanoseconds(at uint64) time.Time {
	const second = uint64(time.Second)
	return time.Unix(int64(at/second), int64(at%second)).UTC()
}
