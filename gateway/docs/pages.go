package docs

import (
	"embed"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/observe"
)

//go:embed *.md
var files embed.FS

// Page is a document, as Markdown.
type Page struct {
	Name  string // that of its file, without .md
	Title string // its first heading
	Text  string
}

// Pages returns the documents by name: those of this folder, and the causes of bad health as
// "health".
func Pages() ([]Page, error) {
	out := []Page{page("health", observe.Causes())}
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		b, err := files.ReadFile(e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, page(strings.TrimSuffix(e.Name(), ".md"), string(b)))
	}
	slices.SortFunc(out, func(a, b Page) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func page(name, text string) Page {
	first, _, _ := strings.Cut(text, "\n")
	return Page{Name: name, Title: strings.TrimPrefix(first, "# "), Text: text}
}
