// Numbers the events of each key: the example that every language has. What the
// header Weir-Test asks for is for the tests of the host.
package main

import "weir.dev/guest/weir"

type rotation struct {
	Key string `json:"key"`
	N   uint64 `json:"n"`
	Of  string `json:"of"`
}

const n = weir.Cell[uint64]("n")

func init() { weir.Handle(rotations) }

func main() {}

func rotations(e *weir.Event) error {
	if order, there := e.Header("Weir-Test"); there {
		if err := misbehave(order); err != nil {
			return err
		}
	}
	number, err := n.Update(func(n *uint64) { *n++ })
	if err != nil {
		return err
	}
	return weir.Emit("rotations."+weir.SubjectToken(e.Key), rotation{e.Key, number, e.ID})
}

func misbehave(order string) error {
	switch order {
	case "retry":
		return weir.Retryf("asked to retry")
	case "reject":
		return weir.Rejectf("asked to reject")
	case "trap":
		panic("asked to trap")
	case "spin":
		for {
		}
	case "hoard":
		var hoard [][]byte
		for {
			hoard = append(hoard, make([]byte, 1<<20))
		}
	}
	return nil
}
