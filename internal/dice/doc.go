// Package dice makes inputs for the fuzzed tests of the machines: whatever bytes a fuzzer comes up with are a sequence of choices, most of them
// ordinary, some hostile. The same bytes are the same inputs.
//
//	f.Fuzz(func(t *testing.T, data []byte) {
//		d := dice.New(data)
//		for d.More() {
//			m.Step(now, dice.Pick[Input](d, Tick{}, Heartbeat{ID: d.Name(), Seq: d.Unsigned()}))
//		}
//	})
//
// It is for tests alone, promises nothing else, and belongs to one goroutine.
package dice
