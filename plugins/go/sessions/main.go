// Session windows: a user's visits to pages, until there was none for a while,
// are one session. When it is over, a summary of it is emitted.
//
// The window is a timer, which every visit sets anew. Timers are durable and
// commit together with the state, so a session ends exactly once, also
// where the host was away at the time.
package main

import (
	"log/slog"
	"time"

	"weir.dev/guest/weir"
)

const (
	// gapDefault without a visit ends a session, unless [config] gap says another.
	gapDefault = 30 * time.Minute

	// pagesMax bounds the state of one user; visits to more pages are counted
	// under otherPages.
	pagesMax   = 100
	otherPages = "(other)"

	timer = "gap"
)

// visit is the payload of an event.
type visit struct {
	Page string `json:"page"`
}

// session is the state of a user, and what is emitted of it.
type session struct {
	User    string    `json:"user"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Seconds int64     `json:"seconds"`
	Visits  int       `json:"visits"`
	// Written in the order of its keys.
	Pages map[string]int `json:"pages"`
}

const current = weir.Cell[session]("session")

func init() { weir.Handle(sessions) }

func main() {}

func sessions(e *weir.Event) error {
	gap, err := weir.ConfigOr("gap", gapDefault, time.ParseDuration)
	if err != nil {
		return err
	}
	s, open, err := current.Lookup()
	if err != nil {
		return err
	}
	if e.Timer == timer {
		if open {
			return end(s)
		}
		return nil
	}

	var v visit
	if err := e.JSON(&v); err != nil {
		return err
	}
	if v.Page == "" {
		return weir.Rejectf("a visit without a page")
	}
	// The timer's event comes in order with the others, but may come late: what is
	// read from long ago has times of long ago, and timers fire by today's clock.
	if open && e.Time.Sub(s.Ended) >= gap {
		if err := end(s); err != nil {
			return err
		}
		open = false
	}
	if !open {
		s = session{User: e.Key, Began: e.Time, Pages: map[string]int{}}
	}
	s.add(v.Page, e.Time)
	weir.SetTimer(timer, e.Time.Add(gap), nil)
	return current.Set(s)
}

func (s *session) add(page string, at time.Time) {
	if _, known := s.Pages[page]; !known && len(s.Pages) >= pagesMax {
		page = otherPages
	}
	s.Pages[page]++
	s.Visits++
	s.Ended = at
	s.Seconds = int64(at.Sub(s.Began) / time.Second)
}

// end emits the session and forgets it.
func end(s session) error {
	slog.Debug("a session is over", "visits", s.Visits)
	current.Delete()
	weir.CancelTimer(timer)
	return weir.Emit("sessions."+weir.SubjectToken(s.User), s)
}
