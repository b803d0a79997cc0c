//go:build docs

package documents

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A block is a fence of a page, or a comment that asks for something.
type block struct {
	page string
	line int // of its beginning
	lang string
	info string // what follows the language
	text string
}

func (b block) where() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

var asks = regexp.MustCompile(`^\s*<!-- run: (.+?) -->\s*$`)

// blocks reads a page.
func blocks(page, text string) ([]block, error) {
	var l []block
	var open *block
	indent := ""
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimLeft(line, " ")
		switch {
		case open != nil && strings.TrimSpace(line) == "```":
			l = append(l, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		case strings.HasPrefix(trimmed, "```"):
			lang, info, _ := strings.Cut(strings.TrimPrefix(trimmed, "```"), " ")
			open, indent = &block{page: page, line: i + 1, lang: lang, info: info}, line[:len(line)-len(trimmed)]
		default:
			if m := asks.FindStringSubmatch(line); m != nil {
				l = append(l, block{page: page, line: i + 1, lang: "run", text: m[1]})
			}
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s:%d: a fence is not closed", page, open.line)
	}
	return l, nil
}

// pages are the files that are run, by name.
func pages(t *testing.T) map[string][]block {
	t.Helper()
	found := map[string][]block{}
	guides, err := filepath.Glob(filepath.Join(root, "docs", "guides", "*.md"))
	if err != nil || len(guides) == 0 {
		t.Fatalf("no guides found: %v", err)
	}
	for _, path := range append(guides, filepath.Join(root, "docs", "first-ten-minutes.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".md")
		l, err := blocks(filepath.Base(path), string(text))
		if err != nil {
			t.Fatal(err)
		}
		found[name] = l
	}
	return found
}

// What differs from run to run, and how it may look instead.
var varying = regexp.MustCompile(`\d{4}-\d\d-\d\dT(?:\.\.\.|[0-9:.]+Z)` + // a moment, cut off or whole
	`|\d\d:\d\d:\d\d\.\d{3}` + // a time of day
	`|\b\d{16}\b` + // a token
	`|\b[0-9A-Za-z]{22}\b` + // a ballot's id
	`|\b(?:now|\d+(?:\.\d+)?(?:µs|ms|s|m)(?: ago)?)(?:\b|$)` +
	`|\blaptop\b|/home/me\b` + // the host, and the home directory
	`|  +|\.\.\.`)

// pattern is what output must look like that is shown as text.
func pattern(text string) string {
	var b strings.Builder
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines {
		if strings.TrimSpace(line) == "..." {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		line = strings.TrimRight(line, " ")
		at := 0
		for _, m := range varying.FindAllStringIndex(line, -1) {
			b.WriteString(regexp.QuoteMeta(line[at:m[0]]))
			switch found := line[m[0]:m[1]]; {
			case found == "...":
				b.WriteString(`.*?`)
			case strings.TrimSpace(found) == "":
				b.WriteString(` +`)
			case found == "laptop" || found == "/home/me":
				b.WriteString(`\S+`)
			case len(found) == 22:
				b.WriteString(`[0-9A-Za-z]{22}`)
			case len(found) == 16 && strings.Trim(found, "0123456789") == "":
				b.WriteString(`\d{16}`)
			case strings.Contains(found, "-"):
				b.WriteString(`\d{4}-\d\d-\d\dT(?:\.\.\.|[0-9:.]+Z)`)
			case strings.Count(found, ":") == 2:
				b.WriteString(`\d\d:\d\d:\d\d\.\d{3}`)
			default:
				b.WriteString(`(?:now|\d+(?:\.\d+)?(?:µs|ms|s|m)(?: ago)?)`)
			}
			at = m[1]
		}
		b.WriteString(regexp.QuoteMeta(line[at:]) + " *\n")
	}
	return b.String()
}

// TestPattern: what the pages show is compared but for what varies.
func TestPattern(t *testing.T) {
	shown := "ID  STATUS  INDEX  JOINED  SEEN  HOST\na   alive       0  2s ago  now   laptop\n...\n21:02:33.836 leader-elected a, token 1795899753623217\nyes: 0gHC8pYWgHYLrbr2vwpc8M: switch ... of 2\nagreed, at 2026-11-28T...\n"
	for _, c := range []struct {
		came string
		fits bool
	}{
		{shown, true},
		{"ID  STATUS  INDEX  JOINED   SEEN   HOST\na   alive       0  10s ago  3.2ms ago  vm-12   \none\ntwo\n01:02:33.836 leader-elected a, token 1795899753629999\nyes: 1gHC8pYWgHYLrbr2vwpc8M: switch over? of 2\nagreed, at 2027-01-02T03:04:05.123456789Z\n", true},
		{strings.Replace(shown, "alive       0", "alive       1", 1), false},
		{strings.Replace(shown, "elected a", "elected b", 1), false},
		{strings.Replace(shown, "of 2", "of 3", 1), false},
		{strings.Replace(shown, "21:02:33.836 ", "", 1), false},
		{strings.Replace(shown, "at 2026-11-28T...", "at 12s", 1), false},
		{shown + "more\n", false},
		{"more\n" + shown, false},
	} {
		if got := regexp.MustCompile(`\A` + pattern(shown) + `\z`).MatchString(c.came); got != c.fits {
			t.Errorf("%q fits: %v, want %v", c.came, got, c.fits)
		}
	}
}
