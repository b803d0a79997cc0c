package suggest

import "strings"

// Nearest is the known word that was probably meant, or "": at most a third of it mistyped (two letters at most), or
// the only one that begins with what was typed.
func Nearest(typed string, known []string) string {
	if len(typed) > 64 {
		return "" // nobody's slip
	}
	best, distance := "", 3
	var longer []string
	for _, k := range known {
		if k == typed {
			continue
		}
		bare := strings.TrimLeft(k, "-")
		if d := edits(typed, k); d < distance && d <= max(1, len(bare)/3) && d < len(bare) {
			best, distance = k, d
		}
		if strings.HasPrefix(k, typed) && len(strings.TrimLeft(typed, "-")) > 1 {
			longer = append(longer, k)
		}
	}
	if best == "" && len(longer) == 1 {
		return longer[0]
	}
	return best
}

// edits is the number of letters to insert, delete, replace or swap with a neighbour to make b of a.
func edits(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
