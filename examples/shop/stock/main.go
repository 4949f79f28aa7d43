// The stock of an article: what the warehouse delivers, and what is put aside for orders.
//
// The key is the article, so that its orders come one after the other and the last piece is
// given away once. A command may come twice, since its answer may have been late: what is
// put aside is remembered per order, and said again.
package main

import (
	"strings"

	"weir.dev/guest/weir"
)

// delivery is the payload of warehouse.delivered.<article>.
type delivery struct {
	Pieces int `json:"pieces"`
}

// wanted is what is read of an order.
type wanted struct {
	Order  string `json:"order"`
	Pieces int    `json:"pieces"`
}

// shelf is the state of an article.
type shelf struct {
	// Left is what nobody has yet.
	Left int `json:"left"`
	// Held is what is put aside, by order. Each order holds a piece at least, so that
	// it is never longer than what was delivered.
	Held map[string]int `json:"held"`
}

// answer is the payload of all answers.
type answer struct {
	Article string `json:"article"`
	Pieces  int    `json:"pieces"`
	Left    int    `json:"left"`
	// Again: it was done before, and is only said again.
	Again  bool   `json:"again"`
	Reason string `json:"reason,omitempty"`
}

const current = weir.Cell[shelf]("shelf")

func init() { weir.Handle(stock) }

func main() {}

func stock(e *weir.Event) error {
	s, err := current.Get()
	if err != nil {
		return err
	}
	if s.Held == nil {
		s.Held = map[string]int{}
	}
	if e.Stream == "DELIVERIES" {
		var d delivery
		if err := e.JSON(&d); err != nil {
			return err
		}
		if d.Pieces < 1 {
			return weir.Rejectf("a delivery of %d pieces", d.Pieces)
		}
		s.Left += d.Pieces
		return current.Set(s)
	}

	var w wanted
	if err := e.JSON(&w); err != nil {
		return err
	}
	if w.Order == "" || w.Pieces < 1 {
		return weir.Rejectf("%d pieces for order %q", w.Pieces, w.Order)
	}
	said, a := "", answer{}
	if strings.HasPrefix(e.Subject, "stock.reserve.") {
		said, a = s.reserve(w)
	} else {
		said, a = s.release(w)
	}
	a.Article, a.Left = e.Key, s.Left
	if err := current.Set(s); err != nil {
		return err
	}
	return reply(e, said, w.Order, a)
}

func (s *shelf) reserve(w wanted) (string, answer) {
	if pieces, held := s.Held[w.Order]; held {
		return "stock.reserved", answer{Pieces: pieces, Again: true}
	}
	if s.Left < w.Pieces {
		return "stock.out", answer{Reason: "it is sold out"}
	}
	s.Left -= w.Pieces
	s.Held[w.Order] = w.Pieces
	return "stock.reserved", answer{Pieces: w.Pieces}
}

// release also succeeds where nothing was put aside: whoever asks may not know.
func (s *shelf) release(w wanted) (string, answer) {
	pieces, held := s.Held[w.Order]
	delete(s.Held, w.Order)
	s.Left += pieces
	return "stock.released", answer{Pieces: pieces, Again: !held}
}

// reply emits with the headers by which a saga knows what is answered.
func reply(e *weir.Event, subject, order string, a answer) error {
	var headers []weir.Header
	for _, name := range []string{"Saga-Id", "Saga-Step", "Saga-Attempt"} {
		if value, there := e.Header(name); there {
			headers = append(headers, weir.Header{Name: name, Value: value})
		}
	}
	return weir.Emit(subject+"."+weir.SubjectToken(order), a, headers...)
}
