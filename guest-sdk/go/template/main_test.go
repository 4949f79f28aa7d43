package main

import (
	"testing"
	"time"

	"weir.dev/guest/weir"
	"weir.dev/guest/weir/weirtest"
)

func TestCountsAndCallsQuiet(t *testing.T) {
	host := weirtest.New()
	event := weir.Event{Subject: "events.anna", Key: "anna", Data: []byte(`{"amount":5}`)}
	for _, want := range []string{`{"key":"anna","count":1}`, `{"key":"anna","count":2}`} {
		effects, err := host.Deliver(handle, event)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(effects.Emitted[0].Data); got != want {
			t.Errorf("emitted %s, not %s", got, want)
		}
	}
	fired := weir.Event{Key: "anna", Timer: quietTimer, Time: time.Unix(60, 0)}
	effects, err := host.Deliver(handle, fired)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(effects.Emitted[0].Data); got != `{"key":"anna","quiet":true}` {
		t.Errorf("emitted %s", got)
	}
}

func TestRejectsWhatIsNotJSON(t *testing.T) {
	_, err := weirtest.New().Deliver(handle, weir.Event{Data: []byte("five")})
	if !weir.IsReject(err) {
		t.Errorf("got %v", err)
	}
}
