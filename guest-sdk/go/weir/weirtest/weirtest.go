// Package weirtest is a host for unit tests by `go test`: no Wasm, no NATS, and the
// same rule that an invocation's effects are kept as a whole or not at all.
//
//	host := weirtest.New()
//	effects, err := host.Deliver(count, weir.Event{Subject: "orders.new", Key: "a"})
//	// effects.Emitted[0].Data is "1", host.Cell("a", "n") is "1"
//
// It does not enforce the limits and the [emit] table of handler.toml, and fires no
// timers: deliver an event with a Timer. The handler's package is an ordinary one:
// that its init function calls [weir.Handle] does no harm.
package weirtest

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"weir.dev/guest/internal/host"
	"weir.dev/guest/weir"
)

// Host has the state of one handler and its configuration, and what it shares with others.
type Host struct {
	config    map[string]string
	keys      map[string]*key
	shared    sharing
	delivered uint64
}

type key struct {
	cells  map[string][]byte
	timers map[string]uint64
}

// Effects are what one invocation did, its cells apart.
type Effects struct {
	Emitted []Emitted
	Timers  []Timer
	Log     []Line
}

// Emitted is one event.
type Emitted struct {
	Subject string
	Headers []weir.Header
	Data    []byte
}

// Timer is one that was set, or one that was cancelled, whose At is zero.
type Timer struct {
	Name string
	At   time.Time
	Data []byte
}

// Line is one line of the log.
type Line struct {
	Level   slog.Level
	Message string
}

// New returns a host without any state.
func New() *Host {
	return &Host{config: map[string]string{}, keys: map[string]*key{}, shared: newSharing()}
}

// SetConfig adds to what [weir.Config] answers.
func (h *Host) SetConfig(name, value string) {
	h.config[name] = value
}

// Deliver calls the handler, and keeps its cells and timers if it succeeds. What the
// event leaves out is filled in: stream TEST, numbered in the order of delivery,
// the subject as the key, and 1970 as the time. A timer that fires is no longer set.
// The error is the handler's, or a [WaitsError].
func (h *Host) Deliver(handler func(*weir.Event) error, e weir.Event) (Effects, error) {
	h.delivered++
	if e.Stream == "" {
		e.Stream = "TEST"
	}
	if e.Sequence == 0 {
		e.Sequence = h.delivered
	}
	if e.ID == "" {
		e.ID = fmt.Sprintf("%s:%d", e.Stream, e.Sequence)
	}
	if e.Key == "" {
		e.Key = e.Subject
	}
	if e.Time.IsZero() {
		e.Time = time.Unix(0, 0).UTC()
	}
	now := &invocation{config: h.config, cells: map[string][]byte{}, timers: map[string]uint64{}}
	if before := h.keys[e.Key]; before != nil {
		maps.Copy(now.cells, before.cells)
		maps.Copy(now.timers, before.timers)
	}
	if e.Timer != "" {
		delete(now.timers, e.Timer)
	}
	shared := h.shared.forKey(e.Key)
	if err := shared.run(func() error { return weir.Invoke(now, shared, handler, &e) }); err != nil {
		return Effects{}, err
	}
	h.keys[e.Key] = &key{now.cells, now.timers}
	h.shared = shared.sharing
	return now.effects, nil
}

// Cell returns a cell as the last successful invocation of that key left it, and
// whether there is one.
func (h *Host) Cell(keyName, cell string) ([]byte, bool) {
	key := h.keys[keyName]
	if key == nil {
		return nil, false
	}
	value, there := key.cells[cell]
	return value, there
}

// invocation is what the handler being called sees and has done.
type invocation struct {
	config  map[string]string
	cells   map[string][]byte
	timers  map[string]uint64
	effects Effects
}

func (i *invocation) Get(cell string) ([]byte, bool) {
	value, there := i.cells[cell]
	return bytes.Clone(value), there
}

func (i *invocation) Set(cell string, value []byte) {
	// Not nil, which would be no cell.
	i.cells[cell] = append([]byte{}, value...)
}

func (i *invocation) Delete(cell string) {
	delete(i.cells, cell)
}

func (i *invocation) GetMany(cells []string) [][]byte {
	values := make([][]byte, len(cells))
	for at, cell := range cells {
		values[at], _ = i.Get(cell)
	}
	return values
}

func (i *invocation) Cells(prefix string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(i.cells)) {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

func (i *invocation) Emit(subject string, headers []weir.Header, data []byte) {
	emitted := Emitted{subject, slices.Clone(headers), bytes.Clone(data)}
	i.effects.Emitted = append(i.effects.Emitted, emitted)
}

func (i *invocation) SetTimer(name string, at uint64, data []byte) {
	i.timers[name] = at
	timer := Timer{name, time.Unix(0, int64(at)).UTC(), bytes.Clone(data)}
	i.effects.Timers = append(i.effects.Timers, timer)
}

func (i *invocation) CancelTimer(name string) {
	delete(i.timers, name)
	i.effects.Timers = append(i.effects.Timers, Timer{Name: name})
}

func (i *invocation) TimerDue(name string) (uint64, bool) {
	at, set := i.timers[name]
	return at, set
}

func (i *invocation) Config(name string) (string, bool) {
	value, there := i.config[name]
	return value, there
}

func (i *invocation) Log(level host.Level, message string) {
	levels := [...]slog.Level{weir.LevelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	i.effects.Log = append(i.effects.Log, Line{levels[level], message})
}
