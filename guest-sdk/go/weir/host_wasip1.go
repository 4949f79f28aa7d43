package weir

import (
	"weir.dev/guest/generated/weir_handler_config"
	"weir.dev/guest/generated/weir_handler_log"
	"weir.dev/guest/generated/weir_handler_output"
	"weir.dev/guest/generated/weir_handler_state"
	"weir.dev/guest/generated/weir_handler_timers"
	"weir.dev/guest/generated/weir_handler_types"
	_ "weir.dev/guest/generated/wit_exports" // the functions that the host calls
	export "weir.dev/guest/internal/export_wit_world"
	"weir.dev/guest/internal/host"
	types "weir.dev/guest/internal/wit/types"
)

func init() {
	host.Current = component{}
	export.Handler = invoke
}

// invoke goes from the bindings to the handler and back.
func invoke(from export.Event) export.Outcome {
	if handler == nil {
		panic("no handler: call weir.Handle in an init function (main is never called)")
	}
	e := Event{
		ID:       from.Id,
		Stream:   from.Stream,
		Sequence: from.Sequence,
		Subject:  from.Subject,
		Key:      from.Key,
		Time:     fromUnixNanoseconds(from.Time),
		Data:     from.Data,
	}
	e.Timer, _ = from.Timer.Get()
	if len(from.Headers) > 0 {
		e.Headers = make([]Header, len(from.Headers))
		for i, header := range from.Headers {
			e.Headers[i] = Header(header)
		}
	}
	now = e.Time
	err := handler(&e)
	if err == nil {
		return types.Ok[types.Unit, export.Failure](types.Unit{})
	}
	failure := weir_handler_types.MakeFailureRetry(err.Error())
	if IsReject(err) {
		failure = weir_handler_types.MakeFailureReject(err.Error())
	}
	return types.Err[types.Unit](failure)
}

// component calls the host that this component runs on.
type component struct{}

func (component) Get(cell string) ([]byte, bool) {
	return weir_handler_state.Get(cell).Get()
}

func (component) Set(cell string, value []byte) {
	weir_handler_state.Set(cell, value)
}

func (component) Delete(cell string) {
	weir_handler_state.Delete(cell)
}

func (component) GetMany(cells []string) [][]byte {
	answers := weir_handler_state.GetMany(cells)
	values := make([][]byte, len(answers))
	for i, answer := range answers {
		values[i], _ = answer.Get()
	}
	return values
}

func (component) Cells(prefix string) []string {
	return weir_handler_state.Cells(prefix)
}

func (component) Emit(subject string, headers []Header, data []byte) {
	var lowered []weir_handler_types.Header
	for _, header := range headers {
		lowered = append(lowered, weir_handler_types.Header(header))
	}
	weir_handler_output.Emit(subject, lowered, data)
}

func (component) SetTimer(name string, at uint64, data []byte) {
	weir_handler_timers.Set(name, at, data)
}

func (component) CancelTimer(name string) {
	weir_handler_timers.Cancel(name)
}

func (component) TimerDue(name string) (uint64, bool) {
	return weir_handler_timers.Due(name).Get()
}

func (component) Config(name string) (string, bool) {
	return weir_handler_config.Get(name).Get()
}

func (component) Log(level host.Level, message string) {
	weir_handler_log.Write(weir_handler_log.Level(level), message)
}
