// Package shared has cells and locks that all keys, handlers and hosts of the ledger
// share.
//
// What an event reads here still holds when its effects are committed; if somebody
// else was faster, nothing of it counts, and it is handled again. So a read, a
// decision and a write are one step, whatever others do meanwhile.
//
//	const seats = shared.Cell[int]("seats")
//
//	func book(e *weir.Event) error {
//		taken, err := seats.Update(func(taken *int) { *taken++ })
//		if err != nil {
//			return err
//		}
//		return weir.Emit("bookings", taken)
//	}
//
// A lock is held by the event's key, from one event to a later one, until it is given
// back, or its time is over and somebody else takes it. Its token rises from holder to
// holder: hand it to whatever is to be protected, so that it can refuse older ones. What
// an event does after it took a lock is committed only if the lock is still held.
//
//	func deliver(e *weir.Event) error {
//		if e.Subject == "parcels.delivered" {
//			shared.Unlock("van-1")
//			return nil
//		}
//		// Waits until the van is free, without holding up other keys.
//		return weir.Emit("vans.load", shared.Lock("van-1", time.Minute))
//	}
//
// A component imports the host's functions for these only if it imports this package: the
// groups of a handler that shares something may have to be executed again, and it is
// prepared for that.
package shared

import (
	"time"

	"weir.dev/guest/internal/host"
	"weir.dev/guest/internal/values"
)

// kind names a shared cell in errors.
const kind = "shared cell"

// Cell is a typed view of the shared cell of that name, kept as JSON.
type Cell[T any] string

// Get returns the value, or the zero value where there is none. An error is one to
// retry: the event is not to blame for what is in the cell.
func (c Cell[T]) Get() (T, error) {
	value, _, err := c.Lookup()
	return value, err
}

// Lookup is [Cell.Get] that tells the zero value from none.
func (c Cell[T]) Lookup() (value T, there bool, err error) {
	bytes, there := Get(string(c))
	value, err = values.DecodeCell[T](kind, string(c), bytes, there)
	return value, there, err
}

// Set writes the value. It fails where it has no form in JSON, such as a channel.
func (c Cell[T]) Set(value T) error {
	bytes, err := values.EncodeCell(kind, string(c), value)
	if err != nil {
		return err
	}
	Set(string(c), bytes)
	return nil
}

// Update changes the value, or the zero value where there is none yet, and
// returns it.
func (c Cell[T]) Update(change func(*T)) (T, error) {
	value, err := c.Get()
	if err != nil {
		return value, err
	}
	change(&value)
	return value, c.Set(value)
}

// Delete removes the cell, if there is one.
func (c Cell[T]) Delete() {
	Delete(string(c))
}

// Get returns the bytes of a shared cell, and whether there is one.
func Get(name string) ([]byte, bool) {
	return calls().Get(name)
}

// Set writes the bytes of a shared cell.
func Set(name string, value []byte) {
	calls().Set(name, value)
}

// Delete removes a shared cell, if there is one.
func Delete(name string) {
	calls().Delete(name)
}

// TryLock takes the lock for the event's key, or goes on holding it, until ttl from now,
// and returns its fencing token; false where another key or handler holds it.
//
// A ttl below 100 ms is 100 ms; one above seven days is seven days.
func TryLock(name string, ttl time.Duration) (token uint64, held bool) {
	return calls().TryLock(name, milliseconds(ttl))
}

// Lock is [TryLock], but where another holds the lock, this invocation ends here with
// nothing done, and the event is handled again once the lock is free. The key's later
// events wait behind it; other keys do not.
//
// In a unit test, weirtest's Deliver then returns a WaitsError.
func Lock(name string, ttl time.Duration) (token uint64) {
	return calls().Lock(name, milliseconds(ttl))
}

// Unlock gives the lock back, if the event's key holds it.
func Unlock(name string) {
	calls().Unlock(name)
}

func milliseconds(ttl time.Duration) uint64 {
	return uint64(max(ttl, 0).Milliseconds())
}

// calls is who runs the handler.
func calls() host.Shared {
	if host.CurrentShared == nil {
		panic("weir/shared: called outside of a handler; in a test, call the handler by weirtest")
	}
	return host.CurrentShared
}
