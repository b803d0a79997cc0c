package embedded

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/quorate/quorate/internal/suggest"
)

// A Mistake is one thing that is wrong with a configuration file.
type Mistake struct {
	Line  int    // from 1; of the field, or of what it should stand in; 0 if it is about the file as a whole
	Field string // as a path: machines[1].host
	Text  string // what is wrong, and what to write
}

func (m Mistake) String() string {
	s := m.Text
	if m.Field != "" {
		s = m.Field + ": " + s
	}
	if m.Line > 0 {
		s = fmt.Sprintf("line %d: %s", m.Line, s)
	}
	return s
}

// A FileError lists all that is wrong with a configuration file, in the order of its lines.
type FileError struct {
	File     string
	Mistakes []Mistake
}

// mostMistakes are spelled out in one message: a file with more was probably meant for something else.
const mostMistakes = 10

func (e *FileError) Error() string {
	var l []string
	for i, m := range e.Mistakes {
		if i == mostMistakes {
			l = append(l, fmt.Sprintf("and %d more", len(e.Mistakes)-i))
			break
		}
		l = append(l, m.String())
	}
	return fmt.Sprintf("%s: %s", e.File, strings.Join(l, "; "))
}

// A jsonFile decodes a JSON file that people write: what is unknown, given twice or of another type is a mistake with its line, and reading goes on
// behind it. (encoding/json stops at the first, takes fields in any case and the last of two, and says no line.)
type jsonFile struct {
	data     []byte
	dec      *json.Decoder
	lines    map[string]int // of each field that was given, by its path
	mistakes []Mistake
}

// errSyntax ends the reading: what follows cannot be told.
var errSyntax = errors.New("not JSON")

// decode fills v, a pointer to a struct of text, numbers, truth values, and structs and lists of them.
func (f *jsonFile) decode(data []byte, v any) {
	f.data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors begin files with it
	f.lines = map[string]int{}
	f.dec = json.NewDecoder(bytes.NewReader(f.data))
	f.dec.UseNumber()
	if f.value(reflect.ValueOf(v).Elem(), "") != nil {
		return
	}
	if _, err := f.dec.Token(); !errors.Is(err, io.EOF) {
		f.wrong(f.line(), "", "something follows the closing brace: remove it")
	}
}

func (f *jsonFile) wrong(line int, path, format string, args ...any) {
	f.mistakes = append(f.mistakes, Mistake{line, path, fmt.Sprintf(format, args...)})
}

// at adds a mistake about a field, whose line is that of what it stands in if it was not given.
func (f *jsonFile) at(path, format string, args ...any) {
	line := 0
	for p := path; ; {
		if n, ok := f.lines[p]; ok {
			line = n
			break
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	f.wrong(line, path, format, args...)
}

// err is all that was found, in order; nil if that is nothing.
func (f *jsonFile) err(file string) error {
	if len(f.mistakes) == 0 {
		return nil
	}
	slices.SortStableFunc(f.mistakes, func(a, b Mistake) int { return a.Line - b.Line })
	return &FileError{File: file, Mistakes: f.mistakes}
}

func (f *jsonFile) lineAt(offset int64) int {
	return 1 + bytes.Count(f.data[:min(int(offset), len(f.data))], []byte("\n"))
}

// line is that of the token that was read last: no token of JSON holds a line break.
func (f *jsonFile) line() int { return f.lineAt(f.dec.InputOffset()) }

func (f *jsonFile) token(path string) (json.Token, error) {
	t, err := f.dec.Token()
	if err == nil {
		return t, nil
	}
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		f.wrong(f.lineAt(syntax.Offset), path, "not JSON: %s", syntax.Error())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f.wrong(f.lineAt(int64(len(f.data))), path, "the file ends here: a brace, a bracket or a quotation mark is missing")
	default:
		f.wrong(f.line(), path, "not JSON: %v", err)
	}
	return nil, errSyntax
}

// value reads one value into v.
func (f *jsonFile) value(v reflect.Value, path string) error {
	t, err := f.token(path)
	if err != nil {
		return err
	}
	f.lines[path] = f.line()
	switch t := t.(type) {
	case nil:
		return nil // null: as if it were not there
	case json.Delim:
		switch {
		case t == '{' && v.Kind() == reflect.Struct:
			return f.fields(v, path)
		case t == '[' && v.Kind() == reflect.Slice:
			return f.elements(v, path)
		}
		f.mismatch(v, path, map[json.Delim]string{'{': "an object", '[': "a list"}[t])
		return f.skipRest()
	case string:
		if v.Kind() == reflect.String {
			v.SetString(t)
			return nil
		}
		f.mismatch(v, path, "text")
	case bool:
		if v.Kind() == reflect.Bool {
			v.SetBool(t)
			return nil
		}
		f.mismatch(v, path, strconv.FormatBool(t))
	case json.Number:
		if v.Kind() != reflect.Int {
			f.mismatch(v, path, "a number")
			return nil
		}
		n, err := strconv.Atoi(t.String())
		if err != nil {
			f.at(path, "%s is no whole number", t)
			return nil
		}
		v.SetInt(int64(n))
	}
	return nil
}

// mismatch says what was meant instead of what was found. What was found is not repeated: it may be a secret in the wrong place.
func (f *jsonFile) mismatch(v reflect.Value, path, found string) {
	var want string
	switch v.Kind() {
	case reflect.Struct:
		want = `an object is meant, { "field": ... }`
	case reflect.Slice:
		want = "a list is meant, [ ... ]"
	case reflect.String:
		want = "text in quotation marks is meant"
	case reflect.Bool:
		want = "true or false is meant"
	default:
		want = "a whole number is meant, without quotation marks"
	}
	f.at(path, "%s, and this is %s", want, found)
}

func (f *jsonFile) fields(v reflect.Value, path string) error {
	known := map[string]int{}
	var names []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name == "" {
			continue // not of the file
		}
		known[name] = i
		names = append(names, name)
	}
	given := map[string]bool{}
	for f.dec.More() {
		t, err := f.token(path)
		if err != nil {
			return err
		}
		name, _ := t.(string) // a decoder gives nothing else here
		at := join(path, name)
		i, ok := known[name]
		switch {
		case !ok:
			hint := "the fields are " + strings.Join(names, ", ")
			if near := suggest.Nearest(strings.ToLower(name), names); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			} else if slices.Contains(names, strings.ToLower(name)) {
				hint = fmt.Sprintf("did you mean %q?", strings.ToLower(name))
			}
			f.wrong(f.line(), at, "there is no such field: %s", hint)
			if err := f.skip(at); err != nil {
				return err
			}
			continue
		case given[name]:
			f.wrong(f.line(), at, "it is given twice: remove one")
			if err := f.skip(at); err != nil {
				return err
			}
			continue
		}
		given[name] = true
		if err := f.value(v.Field(i), at); err != nil {
			return err
		}
	}
	_, err := f.token(path) // the closing brace
	return err
}

func (f *jsonFile) elements(v reflect.Value, path string) error {
	for i := 0; f.dec.More(); i++ {
		e := reflect.New(v.Type().Elem()).Elem()
		if err := f.value(e, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
		v.Set(reflect.Append(v, e))
	}
	_, err := f.token(path) // the closing bracket
	return err
}

// skip reads one value that nobody wants.
func (f *jsonFile) skip(path string) error {
	t, err := f.token(path)
	if err != nil {
		return err
	}
	if d, ok := t.(json.Delim); ok && (d == '{' || d == '[') {
		return f.skipRest()
	}
	return nil
}

// skipRest reads to the end of the object or list that was just opened.
func (f *jsonFile) skipRest() error {
	for depth := 1; depth > 0; {
		t, err := f.token("")
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
