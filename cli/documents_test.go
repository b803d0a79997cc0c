package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shellWords takes a line of a document apart as a shell would, as far as documents need it: up to what ends a command. Brackets of a synopsis are left out.
func shellWords(line string) []string {
	var words []string
	var w strings.Builder
	in := false // a word has begun
	end := func() {
		if in {
			words = append(words, w.String())
		}
		w.Reset()
		in = false
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case '\'', '"':
			in = true
			for i++; i < len(line) && line[i] != c; i++ {
				w.WriteByte(line[i])
			}
		case ' ', '\t':
			end()
		case '[', ']':
		case '|', '&', ';', '>', '<', ')', '\n':
			end()
			return words
		case '#':
			if !in {
				return words
			}
			w.WriteByte(c)
		default:
			in = true
			w.WriteByte(c)
		}
	}
	end()
	return words
}

// TestDocumentsNameCommands: commands of quorate in documents, and their flags, are there.
func TestDocumentsNameCommands(t *testing.T) {
	var files []string
	for _, p := range []string{"*.md", "docs/*.md", "docs/guides/*.md", "examples/*/*.md"} {
		l, err := filepath.Glob(filepath.Join("..", p))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, l...)
	}
	a := newApp(nil, nil, nil, nil)
	code := regexp.MustCompile("`([^`]+)`")
	command := regexp.MustCompile(`(?:^|[ (/])quorate ((?:-|[a-z]).*)`)
	unsaid := regexp.MustCompile(`is missing|needs a value|not a duration|not a whole number`) // within a sentence a command is named, not given
	checked := 0
	for _, path := range files {
		if name := filepath.Base(path); name == "cli.md" || name == "CHANGELOG.md" || name == "decisions.md" || name == "benchmarks.md" {
			continue // made from the table; of what was; of what is not; other people's commands
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fence := ""
		for i, line := range strings.Split(string(b), "\n") {
			if lang, ok := strings.CutPrefix(strings.TrimSpace(line), "```"); ok {
				if fence != "" {
					fence = ""
				} else {
					fence, _, _ = strings.Cut(lang+" ", " ")
					fence += " "
				}
				continue
			}
			var found []string
			switch {
			case fence == "sh " || fence == "shell " || fence == "crontab ":
				found = []string{strings.TrimSpace(line)}
			case fence != "":
			case strings.HasPrefix(line, "    "):
				found = []string{strings.TrimSpace(line)}
			default:
				for _, m := range code.FindAllStringSubmatch(line, -1) {
					found = append(found, m[1])
				}
			}
			for _, text := range found {
				m := command.FindStringSubmatch(text)
				if m == nil {
					continue
				}
				words := shellWords(m[1])
				if len(words) == 0 {
					continue
				}
				checked++
				if _, err := order(words, a.flags, a.commands); err != nil && (fence != "" || !unsaid.MatchString(err.Error())) {
					t.Errorf("%s:%d: `%s`: %v", strings.TrimPrefix(filepath.ToSlash(path), "../"), i+1, text, err)
				}
			}
		}
	}
	if checked < 70 {
		t.Errorf("%d commands found: the search is wrong", checked)
	}
}
