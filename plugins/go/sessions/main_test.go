package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weir.dev/guest/weir"
	"weir.dev/guest/weir/weirtest"
)

var began = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// at delivers a visit some minutes after the beginning.
func at(t *testing.T, host *weirtest.Host, minutes int, page string) weirtest.Effects {
	t.Helper()
	effects, err := host.Deliver(sessions, weir.Event{
		Key:  "anna",
		Time: began.Add(time.Duration(minutes) * time.Minute),
		Data: fmt.Appendf(nil, `{"page":%q}`, page),
	})
	if err != nil {
		t.Fatal(err)
	}
	return effects
}

func emitted(t *testing.T, effects weirtest.Effects, want ...string) {
	t.Helper()
	var got []string
	for _, e := range effects.Emitted {
		got = append(got, e.Subject+" "+string(e.Data))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("emitted %q, not %q", got, want)
	}
}

const first = `sessions.anna {"user":"anna","began":"2026-03-01T09:00:00Z","ended":"2026-03-01T09:20:00Z",` +
	`"seconds":1200,"visits":3,"pages":{"/":2,"/cart":1}}`

func TestASessionEndsWithItsTimer(t *testing.T) {
	host := weirtest.New()
	at(t, host, 0, "/")
	at(t, host, 5, "/cart")
	effects := at(t, host, 20, "/")
	emitted(t, effects)
	if due := effects.Timers[0].At; !due.Equal(began.Add(50 * time.Minute)) {
		t.Errorf("the timer is due at %v", due)
	}
	fired := weir.Event{Key: "anna", Time: began.Add(50 * time.Minute), Timer: timer}
	effects, err := host.Deliver(sessions, fired)
	if err != nil {
		t.Fatal(err)
	}
	emitted(t, effects, first)
	if _, there := host.Cell("anna", string(current)); there {
		t.Error("the session is still there")
	}
	// Once more, after it was over.
	if effects, err = host.Deliver(sessions, fired); err != nil {
		t.Fatal(err)
	}
	emitted(t, effects)
}

func TestAVisitAfterTheGapEndsItToo(t *testing.T) {
	host := weirtest.New()
	at(t, host, 0, "/")
	at(t, host, 5, "/cart")
	at(t, host, 20, "/")
	emitted(t, at(t, host, 50, "/"), first)
}

func TestTheGapIsConfigured(t *testing.T) {
	host := weirtest.New()
	host.SetConfig("gap", "90s")
	if due := at(t, host, 0, "/").Timers[0].At; !due.Equal(began.Add(90 * time.Second)) {
		t.Errorf("the timer is due at %v", due)
	}
}

func TestPagesAreBounded(t *testing.T) {
	s := session{Pages: map[string]int{}}
	for i := range pagesMax + 5 {
		s.add(fmt.Sprint(i), began)
	}
	if len(s.Pages) != pagesMax+1 || s.Pages[otherPages] != 5 || s.Visits != pagesMax+5 {
		t.Errorf("%d pages, %d others, %d visits", len(s.Pages), s.Pages[otherPages], s.Visits)
	}
}

func TestWhatIsNoVisitIsRejected(t *testing.T) {
	for _, data := range []string{"", "{}", "[1]", `{"page":7}`} {
		_, err := weirtest.New().Deliver(sessions, weir.Event{Data: []byte(data)})
		if !weir.IsReject(err) {
			t.Errorf("%q: %v", data, err)
		}
	}
}
