package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// The words of the console are in its source, in English, each marked by a tag that src/text.ts defines. All of them together
// are the catalogue, strings/en.json, which Write makes: from a text to itself. A translation is another file there, named by
// its language (strings/de.json), from texts of the catalogue to what they are in that language; those that it lacks stay
// English. {0} and so on stand for what is put in.
//
//	msg`On ${n} disks`        "On {0} disks"
//	rich`See ${<b>it</b>}.`   "See {0}."
//	noun`vDisk`               "vDisk|vDisks", in a translation all forms that the language has
const (
	stringsDir = "strings"
	english    = "en"
)

// unmarked is a text of the source that people read and that has no tag.
type unmarked struct{ file, text string } // file: below src

// readTexts returns the catalogue, and what is not in it and should be. root is the absolute path of the folder ui.
func readTexts(root string) (catalogue map[string]string, left []unmarked, err error) {
	catalogue = map[string]string{}
	err = filepath.WalkDir(filepath.Join(root, "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".ts" && filepath.Ext(path) != ".tsx" {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// Without types and JSX there is less to tell apart: a text of an element is a string like any other.
		plain := api.Transform(string(source), api.TransformOptions{Loader: api.LoaderTSX, JSX: api.JSXAutomatic, JSXImportSource: "preact", Target: api.ESNext, Sourcefile: path})
		if len(plain.Errors) > 0 {
			return messages(plain.Errors)
		}
		s := scanner{src: plain.Code, texts: catalogue}
		if err := s.scan(0); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		name, err := filepath.Rel(filepath.Join(root, "src"), path)
		if err != nil {
			return err
		}
		for _, text := range s.left {
			left = append(left, unmarked{filepath.ToSlash(name), text})
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("texts of the console: %w", err)
	}
	return catalogue, left, nil
}

// scanner finds the texts of a script.
type scanner struct {
	src   []byte
	at    int
	texts map[string]string
	left  []string
	// before are the last two words, strings or signs: what a string stands behind.
	before [2]string
}

// scan reads until the sign ends, or to the end of the script when that is 0.
func (s *scanner) scan(ends byte) error {
	for depth := 0; s.at < len(s.src); {
		c := s.src[s.at]
		switch {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			s.at++
		case bytes.HasPrefix(s.src[s.at:], []byte("//")):
			s.skip("\n")
		case bytes.HasPrefix(s.src[s.at:], []byte("/*")):
			s.at += 2
			s.skip("*/")
		case c == '"' || c == '\'':
			text, err := s.quoted(c)
			if err != nil {
				return err
			}
			s.seen(text)
			s.note(`""`)
		case c == '`':
			if err := s.template(); err != nil {
				return err
			}
		case c == '/' && s.regexp():
			s.pattern()
			s.note("/")
		case word(c):
			from := s.at
			for s.at < len(s.src) && word(s.src[s.at]) {
				s.at++
			}
			s.note(string(s.src[from:s.at]))
		default:
			if c == ends && depth == 0 {
				s.at++
				return nil
			}
			if c == '{' {
				depth++
			} else if c == '}' {
				depth--
			}
			s.at++
			s.note(string(c))
		}
	}
	if ends != 0 {
		return errors.New("a text has no end")
	}
	return nil
}

func word(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func (s *scanner) note(what string) { s.before = [2]string{s.before[1], what} }

// skip goes behind what comes next.
func (s *scanner) skip(to string) {
	i := bytes.Index(s.src[s.at:], []byte(to))
	if i < 0 {
		i = len(s.src) - s.at - len(to)
	}
	s.at += i + len(to)
}

// regexp tells whether a slash begins a regular expression: nothing that could be divided stands before it.
func (s *scanner) regexp() bool {
	b := s.before[1]
	switch {
	case b == "":
		return true
	case b == "return" || b == "typeof" || b == "case":
		return true
	case b == ")" || b == "]" || b == "}" || b == `""`:
		return false
	}
	return !word(b[0])
}

func (s *scanner) pattern() {
	for class := false; ; {
		if s.at++; s.at >= len(s.src) {
			return
		}
		switch s.src[s.at] {
		case '\\':
			s.at++
		case '[':
			class = true
		case ']':
			class = false
		case '/':
			if !class {
				s.at++
				return
			}
		}
	}
}

// quoted reads a string.
func (s *scanner) quoted(quote byte) (string, error) {
	from := s.at
	for s.at++; s.at < len(s.src) && s.src[s.at] != quote; s.at++ {
		if s.src[s.at] == '\\' {
			s.at++
		}
	}
	if s.at >= len(s.src) {
		return "", errors.New("a string has no end")
	}
	s.at++
	return cooked(string(s.src[from+1 : s.at-1]))
}

// template reads a template, with what is put in, and keeps its text when it has a tag.
func (s *scanner) template() error {
	tag, before := s.before[1], s.before
	var text strings.Builder
	for n := 0; ; n++ {
		s.at++
		from := s.at
		for s.at < len(s.src) && s.src[s.at] != '`' && !bytes.HasPrefix(s.src[s.at:], []byte("${")) {
			if s.src[s.at] == '\\' {
				s.at++
			}
			s.at++
		}
		if s.at >= len(s.src) {
			return errors.New("a template has no end")
		}
		part, err := cooked(string(s.src[from:s.at]))
		if err != nil {
			return err
		}
		text.WriteString(part)
		if s.src[s.at] == '`' {
			s.at++
			break
		}
		s.at += 2
		s.before = [2]string{tag, "${"}
		if err := s.scan('}'); err != nil {
			return err
		}
		s.at-- // of the text that follows
		fmt.Fprintf(&text, "{%d}", n)
	}
	s.before = before
	switch tag {
	case "msg", "rich":
		s.texts[text.String()] = text.String()
	case "noun":
		both := text.String()
		if !strings.Contains(both, "|") {
			both += "|" + both + "s"
		}
		s.texts[both] = both
	default:
		s.seen(text.String())
	}
	s.note(`""`)
	return nil
}

// cooked is what the inside of a string or template stands for.
func cooked(raw string) (string, error) {
	if !strings.Contains(raw, `\`) {
		return raw, nil
	}
	var out strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' || i+1 == len(raw) {
			out.WriteByte(raw[i])
			continue
		}
		i++
		digits := map[byte]int{'x': 2, 'u': 4}[raw[i]]
		switch {
		case digits > 0 && i+digits < len(raw) && raw[i+1] != '{':
			n, err := strconv.ParseUint(raw[i+1:i+1+digits], 16, 32)
			if err != nil {
				return "", err
			}
			out.WriteRune(rune(n))
			i += digits
		case digits == 4:
			return "", fmt.Errorf("%s: write the sign itself", raw)
		case raw[i] == 'n':
			out.WriteByte('\n')
		case raw[i] == 't':
			out.WriteByte('\t')
		default:
			out.WriteByte(raw[i])
		}
	}
	return out.String(), nil
}

var (
	// sentence is a text that nobody takes for a name: a word with a capital and another one, or several before a full stop.
	sentence = regexp.MustCompile(`^[A-Z][A-Za-z'’]* [a-z“"{(]|^[a-z][A-Za-z'’]* .*[a-z]\.$|^[;,.:] [A-Za-z]+ [a-z]`)
	shown    = regexp.MustCompile(`[A-Za-z]{2}`)
	// code are commands, and what is of CSS, HTTP or a configuration file; names are of products, units, places and hosts, or stand
	// in an empty field as an example.
	code  = regexp.MustCompile(`^(ovgate|openstack|curl|apt|systemctl|GET|POST|PUT|PATCH|DELETE|HEAD|Bearer|-H|OVGATE_URL|registry:|domain:|Mozilla) ?`)
	names = regexp.MustCompile(`^(ms|STARTTLS|OpenStack Swift|Authorization: .*|\S+[./]\S*|\S+:\S*|https?://)$`)
)

// shownBy are the properties whose strings people read.
var shownBy = []string{"children", "title", "label", "aria-label", "placeholder", "hint", "text", "word", "verb", "message"}

// seen looks at a text that has no tag.
func (s *scanner) seen(text string) {
	of := ""
	if s.before[1] == ":" {
		of = s.before[0]
	}
	if code.MatchString(text) || names.MatchString(text) || of == "placeholder" && !strings.Contains(text, " ") {
		return
	}
	if sentence.MatchString(text) || slices.Contains(shownBy, of) && shown.MatchString(text) {
		s.left = append(s.left, text)
	}
}

// languages returns those that there are translations for.
func languages(root string) []string {
	out := []string{}
	paths, _ := filepath.Glob(filepath.Join(root, stringsDir, "*.json")) // its one error is that of a bad pattern
	for _, path := range paths {
		if l := strings.TrimSuffix(filepath.Base(path), ".json"); l != english {
			out = append(out, l)
		}
	}
	return out
}

// translations returns the catalogue and, in dist, each translation, by their paths below root.
func translations(root string) (map[string][]byte, error) {
	catalogue, left, err := readTexts(root)
	if err != nil {
		return nil, err
	}
	var all []error
	for _, u := range left {
		all = append(all, fmt.Errorf("src/%s: %q is read by people and not in the catalogue: write it as msg`…` (src/text.ts)", u.file, u.text))
	}
	files := map[string][]byte{}
	if files[stringsDir+"/"+english+".json"], err = encode(catalogue); err != nil {
		return nil, err
	}
	for _, l := range languages(root) {
		path := filepath.Join(root, stringsDir, l+".json")
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		words := map[string]string{}
		if err := json.Unmarshal(b, &words); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, checkTranslation(l+".json", catalogue, words)...)
		if files["dist/assets/lang-"+l+".json"], err = json.Marshal(words); err != nil {
			return nil, err
		}
	}
	return files, errors.Join(all...)
}

// checkTranslation returns what is wrong with a translation: texts that the catalogue does not have, and values that are not, or
// are not once, in both.
func checkTranslation(name string, catalogue, words map[string]string) []error {
	var all []error
	for _, text := range slices.Sorted(maps.Keys(words)) {
		switch {
		case catalogue[text] == "":
			all = append(all, fmt.Errorf("%s: %q is not in the catalogue any more", name, text))
		case values(text) != values(words[text]):
			all = append(all, fmt.Errorf("%s: %q has other values than %q", name, words[text], text))
		case edges(text) != edges(words[text]):
			all = append(all, fmt.Errorf("%s: %q has not the spaces of %q at its ends", name, words[text], text))
		}
	}
	return all
}

var value = regexp.MustCompile(`\{\d+\}`)

func values(text string) string {
	all := value.FindAllString(text, -1)
	slices.Sort(all)
	return strings.Join(all, "")
}

// edges are the spaces around a text that stands beside another one.
func edges(text string) [2]bool {
	return [2]bool{strings.HasPrefix(text, " "), strings.HasSuffix(text, " ")}
}

// encode writes a catalogue, one text a line, in order.
func encode(words map[string]string) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(words)
	return out.Bytes(), err
}
