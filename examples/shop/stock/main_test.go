package main

import (
	"testing"

	"weir.dev/guest/weir"
	"weir.dev/guest/weir/weirtest"
)

// says delivers a command of an order for three pieces, and returns what is answered.
func says(t *testing.T, host *weirtest.Host, verb, order string) string {
	t.Helper()
	effects, err := host.Deliver(stock, weir.Event{
		Subject: "stock." + verb + ".tea." + order,
		Key:     "tea",
		Data:    []byte(`{"order":"` + order + `","pieces":3}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	return effects.Emitted[0].Subject + " " + string(effects.Emitted[0].Data)
}

func deliver(t *testing.T, host *weirtest.Host) {
	t.Helper()
	event := weir.Event{Stream: "DELIVERIES", Key: "tea", Data: []byte(`{"pieces":5}`)}
	if _, err := host.Deliver(stock, event); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, found, expected string) {
	t.Helper()
	if found != expected {
		t.Errorf("%s, not %s", found, expected)
	}
}

func TestTheLastPieceIsGivenAwayOnce(t *testing.T) {
	host := weirtest.New()
	deliver(t, host)
	first := `{"article":"tea","pieces":3,"left":2,"again":false}`
	expect(t, says(t, host, "reserve", "a"), "stock.reserved.a "+first)
	out := `{"article":"tea","pieces":0,"left":2,"again":false,"reason":"it is sold out"}`
	expect(t, says(t, host, "reserve", "b"), "stock.out.b "+out)
	again := `{"article":"tea","pieces":3,"left":2,"again":true}`
	expect(t, says(t, host, "reserve", "a"), "stock.reserved.a "+again)
}

func TestWhatIsReleasedIsThereAgain(t *testing.T) {
	host := weirtest.New()
	deliver(t, host)
	says(t, host, "reserve", "a")
	expect(t, says(t, host, "release", "a"), `stock.released.a {"article":"tea","pieces":3,"left":5,"again":false}`)
	expect(t, says(t, host, "release", "a"), `stock.released.a {"article":"tea","pieces":0,"left":5,"again":true}`)
}
