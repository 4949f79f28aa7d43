package weirtest_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir.dev/guest/weir"
	"weir.dev/guest/weir/weirtest"
)

var at = time.Date(2013, 1, 1, 10, 0, 0, 5, time.UTC)

// deliver calls a handler once, which must succeed.
func deliver(t *testing.T, host *weirtest.Host, e weir.Event, handler func(*weir.Event) error) weirtest.Effects {
	t.Helper()
	effects, err := host.Deliver(handler, e)
	if err != nil {
		t.Fatal(err)
	}
	return effects
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestCellsAreKeptPerKeyAndOnlyBySuccess(t *testing.T) {
	host := weirtest.New()
	n := weir.Cell[uint64]("n")
	count := func(e *weir.Event) error {
		_, err := n.Update(func(n *uint64) { *n++ })
		if reason, fail := e.Header("fail"); fail {
			return errors.New(reason)
		}
		return err
	}
	deliver(t, host, weir.Event{Key: "a"}, count)
	deliver(t, host, weir.Event{Key: "a"}, count)
	deliver(t, host, weir.Event{Key: "b"}, count)
	failing := weir.Event{Key: "a", Headers: []weir.Header{{Name: "Fail", Value: "no"}}}
	if _, err := host.Deliver(count, failing); err == nil || err.Error() != "no" {
		t.Errorf("got %v", err)
	}
	for key, want := range map[string]string{"a": "2", "b": "1"} {
		got, _ := host.Cell(key, "n")
		same(t, string(got), want)
	}
	deliver(t, host, weir.Event{Key: "a"}, func(*weir.Event) error { n.Delete(); return nil })
	if _, there := host.Cell("a", "n"); there {
		t.Error("a deleted cell is there")
	}
}

func TestReadsSeeTheWritesBeforeThem(t *testing.T) {
	deliver(t, weirtest.New(), weir.Event{}, func(*weir.Event) error {
		weir.Set("b", []byte("2"))
		weir.Set("a", nil)
		weir.Set("ab", []byte("3"))
		weir.Set("c", []byte("4"))
		weir.Delete("c")
		same(t, weir.Cells(""), []string{"a", "ab", "b"})
		same(t, weir.Cells("a"), []string{"a", "ab"})
		same(t, weir.GetMany("b", "c", "a"), [][]byte{[]byte("2"), nil, {}})
		_, there, err := weir.Cell[int]("x").Lookup()
		same(t, []any{there, err}, []any{false, nil})
		return nil
	})
}

func TestACellThatCannotBeReadIsRetried(t *testing.T) {
	_, err := weirtest.New().Deliver(func(*weir.Event) error {
		weir.Set("n", []byte("x"))
		_, err := weir.Cell[int]("n").Get()
		return err
	}, weir.Event{})
	if err == nil || weir.IsReject(err) || !strings.Contains(err.Error(), `reading cell "n"`) {
		t.Errorf("got %v", err)
	}
}

func TestJSONHasNoEscapesThatOthersLack(t *testing.T) {
	value := map[string]any{"b": []int(nil), "a": "<&>\u2028é\t\x01\x7f\"\\/🛩"}
	effects := deliver(t, weirtest.New(), weir.Event{ID: "S:7"}, func(e *weir.Event) error {
		weir.EmitBytes("raw", []byte{0, 255}, weir.Header{Name: "Of", Value: e.ID})
		return weir.Emit("json", value)
	})
	same(t, effects.Emitted, []weirtest.Emitted{
		{"raw", []weir.Header{{Name: "Of", Value: "S:7"}}, []byte{0, 255}},
		{"json", nil, []byte("{\"a\":\"<&>\u2028é\\t\\u0001\x7f\\\"\\\\/🛩\",\"b\":null}")},
	})
	_, err := weirtest.New().Deliver(func(*weir.Event) error { return weir.Emit("x", func() {}) }, weir.Event{})
	if err == nil || !strings.Contains(err.Error(), "emitting on x") {
		t.Errorf("got %v", err)
	}
}

func TestTimers(t *testing.T) {
	host := weirtest.New()
	effects := deliver(t, host, weir.Event{Key: "k", Time: at}, func(*weir.Event) error {
		weir.After("soon", time.Minute)
		weir.SetTimer("past", time.Unix(-5, 0), []byte("x"))
		weir.CancelTimer("past")
		return weir.SetTimerJSON("never", time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 1)
	})
	same(t, effects.Timers, []weirtest.Timer{
		{"soon", at.Add(time.Minute), nil},
		{"past", time.Unix(0, 0).UTC(), []byte("x")},
		{Name: "past"},
		{"never", time.Unix(0, 1<<63-1).UTC(), []byte("1")},
	})
	fired := weir.Event{Key: "k", Timer: "soon"}
	deliver(t, host, fired, func(e *weir.Event) error {
		_, soon := weir.TimerDue("soon")
		due, never := weir.TimerDue("never")
		same(t, []any{e.Timer, soon, due.Year(), never}, []any{"soon", false, 2262, true})
		return nil
	})
}

func TestDecisions(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		err    error
		reject bool
	}{
		{cause, false},
		{weir.Retry(cause), false},
		{weir.Reject(cause), true},
		{weir.Rejectf("no %s: %w", "such plane", cause), true},
		{weir.Retry(weir.Reject(cause)), false},
	} {
		same(t, []any{weir.IsReject(c.err), errors.Is(c.err, cause)}, []any{c.reject, true})
	}
	same(t, []any{weir.Retry(nil), weir.Reject(nil)}, []any{nil, nil})
	_, err := weirtest.New().Deliver(func(e *weir.Event) error {
		var order struct{ Total float64 }
		return e.JSON(&order)
	}, weir.Event{Data: []byte("{")})
	var syntax *json.SyntaxError
	same(t, []any{weir.IsReject(err), errors.As(err, &syntax)}, []any{true, true})
}

func TestConfig(t *testing.T) {
	host := weirtest.New()
	host.SetConfig("limit", "7")
	host.SetConfig("gap", "soon")
	deliver(t, host, weir.Event{}, func(*weir.Event) error {
		limit, err := weir.ConfigOr("limit", 1, strconv.Atoi)
		same(t, []any{limit, err}, []any{7, nil})
		other, err := weir.ConfigOr("other", 1, strconv.Atoi)
		same(t, []any{other, err}, []any{1, nil})
		_, err = weir.ConfigOr("gap", time.Minute, time.ParseDuration)
		if err == nil || !strings.HasPrefix(err.Error(), `[config] gap = "soon": `) {
			t.Errorf("got %v", err)
		}
		return nil
	})
}

func TestTheDefaultLoggerIsTheHandlersLog(t *testing.T) {
	effects := deliver(t, weirtest.New(), weir.Event{}, func(*weir.Event) error {
		slog.Info("hello", "n", 1, "text", "a b")
		slog.With("a", 1).WithGroup("g").Error("no", "b", 2)
		slog.Log(t.Context(), weir.LevelTrace, `msg="" level=`)
		return nil
	})
	same(t, effects.Log, []weirtest.Line{
		{slog.LevelInfo, `hello n=1 text="a b"`},
		{slog.LevelError, "no a=1 g.b=2"},
		{weir.LevelTrace, `msg="" level=`},
	})
}

func TestSubjectToken(t *testing.T) {
	for text, want := range map[string]string{"N14228": "N14228", "a.b *": "a%2Eb%20%2A", "ü": "%C3%BC", "": ""} {
		same(t, weir.SubjectToken(text), want)
	}
}
