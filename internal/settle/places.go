package settle

import "github.com/quorate/quorate/internal/wire"

// Sticky gives the workers their places: who had one keeps it, newcomers fill the places of leavers and then the end,
// and places that are still empty go to the last ones (design 4.3). The workers are in the order in which they joined.
func Sticky(before, workers []wire.Place) []wire.Place {
	left := make(map[string]wire.Place, len(workers))
	for _, w := range workers {
		left[w.ID] = w
	}
	places := make([]wire.Place, 0, max(len(before), len(workers)))
	var holes []int
	for i, b := range before {
		w, ok := left[b.ID]
		if !ok {
			holes = append(holes, i)
		}
		places = append(places, w) // a restarted member takes its place as its new incarnation
		delete(left, b.ID)
	}
	for _, w := range workers {
		if _, new := left[w.ID]; !new {
			continue
		}
		if len(holes) > 0 {
			places[holes[0]], holes = w, holes[1:]
			continue
		}
		places = append(places, w)
	}
	for len(holes) > 0 {
		last := len(places) - 1
		if h := holes[len(holes)-1]; h == last {
			holes = holes[:len(holes)-1]
		} else {
			places[holes[0]], holes = places[last], holes[1:]
		}
		places = places[:last]
	}
	return places
}
