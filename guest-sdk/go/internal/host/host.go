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

// Shared are the imports that package shared calls. They are apart from [Calls], so that a
// component without that package does not import them.
type Shared interface {
	Get(name string) ([]byte, bool)
	Set(name string, value []byte)
	Delete(name string)
	TryLock(name string, ttlMS uint64) (uint64, bool)
	// Lock does not return where another holds it.
	Lock(name string, ttlMS uint64) uint64
	Unlock(name string)
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

// Who runs the handler; nil outside of it, in a test.
var (
	Current       Calls
	CurrentShared Shared
)
