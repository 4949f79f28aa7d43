// Package host is what a handler can ask of whoever runs it: Weir, or in unit
// tests package weirtest.
package host

// Calls are the imports of the world, in Go's types.
type Calls interface {
	Get(cell string) ([]byte, bool)
	Set(cell string, value []byte)
	Delete(cell string)
	// GetMany has one answer per name; nil where there is no such cell.
	GetMany(cells []string) [][]byte
	Cells(prefix string) []string
	Emit(subject string, headers []Header, data []byte)
	// SetTimer's moment is in Unix nanoseconds.
	SetTimer(name string, at uint64, data []byte)
	CancelTimer(name string)
	TimerDue(name string) (uint64, bool)
	Config(name string) (string, bool)
	Log(level Level, message string)
}

// Header is one header of a message.
type Header struct {
	Name, Value string
}

// Level is how much a line of the log matters.
type Level uint8

const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
)

// Current is who runs the handler; nil outside of it, in a test.
var Current Calls
