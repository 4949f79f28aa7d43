package weirtest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"weir.dev/guest/weir"
	"weir.dev/guest/weir/shared"
	"weir.dev/guest/weir/weirtest"
)

func TestSharedCellsAreThoseOfAllKeysAndOnlyBySuccess(t *testing.T) {
	host := weirtest.New()
	sum := shared.Cell[int]("sum")
	add := func(e *weir.Event) error {
		if _, err := sum.Update(func(sum *int) { *sum++ }); err != nil {
			return err
		}
		if reason, fail := e.Header("fail"); fail {
			return errors.New(reason)
		}
		return nil
	}
	deliver(t, host, weir.Event{Key: "a"}, add)
	deliver(t, host, weir.Event{Key: "b"}, add)
	failing := weir.Event{Key: "b", Headers: []weir.Header{{Name: "Fail", Value: "no"}}}
	if _, err := host.Deliver(add, failing); err == nil || err.Error() != "no" {
		t.Errorf("got %v", err)
	}
	value, there := host.Shared("sum")
	same(t, []any{string(value), there}, []any{"2", true})

	host.SetShared("sum", []byte("40"))
	deliver(t, host, weir.Event{Key: "a"}, func(*weir.Event) error {
		n, err := sum.Get()
		same(t, []any{n, err}, []any{40, nil})
		_, own := weir.Get("sum")
		same(t, own, false)
		shared.Set("bytes", []byte{0, 255})
		raw, _ := shared.Get("bytes")
		same(t, raw, []byte{0, 255})
		sum.Delete()
		_, there, err := sum.Lookup()
		same(t, []any{there, err}, []any{false, nil})
		return nil
	})
	_, there = host.Shared("sum")
	same(t, there, false)
	_, err := host.Deliver(func(*weir.Event) error {
		_, err := shared.Cell[int]("bytes").Get()
		return err
	}, weir.Event{})
	if err == nil || weir.IsReject(err) || !strings.Contains(err.Error(), `reading shared cell "bytes"`) {
		t.Errorf("got %v", err)
	}
}

func TestALockIsHeldFromEventToEvent(t *testing.T) {
	host := weirtest.New()
	lock := func(e *weir.Event) error {
		weir.Set("waited", []byte("no"))
		shared.Lock("of-"+e.Key, time.Minute)
		return weir.Emit("token", shared.Lock("van", time.Minute))
	}
	token := func(e weir.Event) string {
		return string(deliver(t, host, e, lock).Emitted[0].Data)
	}
	a, b := weir.Event{Key: "a"}, weir.Event{Key: "b"}
	same(t, []string{token(a), token(a)}, []string{"1", "1"})
	holder, held := host.LockHolder("van")
	same(t, []any{holder, held}, []any{"a", true})

	// Nothing of an event that waits is kept, whatever its handler makes of that.
	stubborn := func(e *weir.Event) (err error) {
		defer func() { _ = recover() }()
		return lock(e)
	}
	for _, handler := range []func(*weir.Event) error{lock, stubborn} {
		_, err := host.Deliver(handler, b)
		var waits *weirtest.WaitsError
		if !errors.As(err, &waits) || waits.Lock != "van" || err.Error() != `waits for lock "van"` {
			t.Errorf("got %v", err)
		}
		_, there := host.Cell("b", "waited")
		_, held := host.LockHolder("of-b")
		same(t, []any{there, held}, []any{false, false})
	}

	unlock := func(*weir.Event) error { shared.Unlock("van"); return nil }
	try := func(*weir.Event) error {
		token, held := shared.TryLock("van", -time.Second)
		return weir.Emit("token", []any{token, held})
	}
	deliver(t, host, b, unlock)
	same(t, string(deliver(t, host, b, try).Emitted[0].Data), "[0,false]")
	deliver(t, host, a, unlock)
	same(t, string(deliver(t, host, b, try).Emitted[0].Data), "[2,true]")
	host.BreakLock("van")
	host.BreakLock("never")
	_, held = host.LockHolder("van")
	same(t, held, false)
	same(t, token(a), "3")
}

func TestAPanicOfTheHandlerIsNoWait(t *testing.T) {
	defer func() { same(t, recover(), any("mine")) }()
	weirtest.New().Deliver(func(*weir.Event) error { panic("mine") }, weir.Event{})
}
