package weir

import "weir.dev/guest/internal/values"

// Cell is a typed view of the cell of that name of the event's key, kept as JSON,
// so that `weir state get` shows something that people can read:
//
//	const seen = weir.Cell[uint64]("seen")
//
// Reads see the writes of this invocation; all of them are committed with
// everything else that it did. Its bytes outlive the code that wrote them: let a
// new version read what the old one wrote.
type Cell[T any] string

// Get returns the value, or the zero value where nothing was ever written.
// An error is one to retry: the event is not to blame for what is in the cell.
func (c Cell[T]) Get() (T, error) {
	value, _, err := c.Lookup()
	return value, err
}

// Lookup is [Cell.Get] that tells the zero value from none.
func (c Cell[T]) Lookup() (value T, there bool, err error) {
	bytes, there := Get(string(c))
	value, err = values.DecodeCell[T]("cell", string(c), bytes, there)
	return value, there, err
}

// Set writes the value. It fails where it has no form in JSON, such as a channel.
func (c Cell[T]) Set(value T) error {
	bytes, err := values.EncodeCell("cell", string(c), value)
	if err != nil {
		return err
	}
	Set(string(c), bytes)
	return nil
}

// Delete removes the cell, if there is one.
func (c Cell[T]) Delete() {
	Delete(string(c))
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

// Get returns the bytes of a cell of the event's key, and whether there is one.
func Get(cell string) ([]byte, bool) {
	return calls().Get(cell)
}

// GetMany returns the bytes of several cells by one call of the host, in the order
// of their names; nil where there is none.
func GetMany(cells ...string) [][]byte {
	return calls().GetMany(cells)
}

// Set writes the bytes of a cell.
func Set(cell string, value []byte) {
	calls().Set(cell, value)
}

// Delete removes a cell, if there is one.
func Delete(cell string) {
	calls().Delete(cell)
}

// Cells returns the names of the key's cells that begin with prefix, in byte order.
func Cells(prefix string) []string {
	return calls().Cells(prefix)
}
