package weir

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync"

	"weir.dev/guest/internal/host"
)

// LevelTrace is below slog's Debug. The host's other levels are slog's.
const LevelTrace = slog.LevelDebug - 4

// The default logger, and with it package log, write to the handler's log, which the
// host keeps with the handler's name and the event's id. What one invocation
// may log is bounded; see [limits] of handler.toml.
func init() {
	slog.SetDefault(slog.New(NewLogHandler()))
}

// LogHandler passes what is logged to the host: the message, and attributes after
// it as name=value. The default logger has one.
type LogHandler struct {
	attributes slog.Handler
	line       *line
}

// line is what attributes writes to.
type line struct {
	bytes.Buffer
	sync.Mutex
}

// NewLogHandler is for loggers other than the default one.
func NewLogHandler() *LogHandler {
	line := new(line)
	options := slog.HandlerOptions{Level: LevelTrace}
	return &LogHandler{slog.NewTextHandler(&line.Buffer, &options), line}
}

// Enabled is always so: the host decides what it shows.
func (h *LogHandler) Enabled(context.Context, slog.Level) bool {
	return true
}

func (h *LogHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return &LogHandler{h.attributes.WithAttrs(attributes), h.line}
}

func (h *LogHandler) WithGroup(name string) slog.Handler {
	return &LogHandler{h.attributes.WithGroup(name), h.line}
}

func (h *LogHandler) Handle(ctx context.Context, record slog.Record) error {
	// `level=INFO msg="" name=value …`, of which only the end is wanted.
	bare := slog.NewRecord(record.Time, record.Level, "", 0)
	record.Attrs(func(attribute slog.Attr) bool {
		bare.AddAttrs(attribute)
		return true
	})
	h.line.Lock()
	defer h.line.Unlock()
	h.line.Reset()
	if err := h.attributes.Handle(ctx, bare); err != nil {
		return err
	}
	_, attributes, _ := bytes.Cut(h.line.Bytes(), []byte(`msg=""`))
	message := record.Message + string(bytes.TrimRight(attributes, "\n"))
	if host.Current == nil {
		_, err := os.Stderr.WriteString(message + "\n")
		return err
	}
	host.Current.Log(level(record.Level), message)
	return nil
}

func level(level slog.Level) host.Level {
	switch {
	case level < slog.LevelDebug:
		return host.Trace
	case level < slog.LevelInfo:
		return host.Debug
	case level < slog.LevelWarn:
		return host.Info
	case level < slog.LevelError:
		return host.Warn
	default:
		return host.Error
	}
}
