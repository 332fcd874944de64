package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	pages "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// catalogue are the texts of the console, in English.
func (p *page) catalogue() map[string]string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "strings", "en.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	words := map[string]string{}
	if err := json.Unmarshal(b, &words); err != nil {
		p.t.Fatal(err)
	}
	return words
}

// foreign gives a page the console in a language in which each text is between « and », with all values: what is read without
// them is not in the catalogue. Call it before the page is loaded.
func (p *page) foreign() {
	p.t.Helper()
	words := p.catalogue()
	for text := range words {
		forms := strings.Split(text, "|")
		for i, f := range forms {
			forms[i] = "«" + f + "»"
		}
		words[text] = strings.Join(forms, "|")
	}
	b, err := json.Marshal(words)
	if err != nil {
		p.t.Fatal(err)
	}
	script := fmt.Sprintf(`if (location.protocol.startsWith("http")) {
		localStorage.setItem("ovgate.language", "de");
		const real = window.fetch;
		window.fetch = (path, ...rest) => path === "/assets/lang-de.json" ? Promise.resolve(new Response(%q)) : real(path, ...rest);
	}`, b)
	if _, err := chromedp.Call(p.ctx, pages.AddScriptToEvaluateOnNewDocument, pages.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		p.t.Fatal(err)
	}
	plain := []string{}
	for text := range p.catalogue() {
		// What has no capital is a word of the node, too, such as the state of something.
		if !strings.ContainsAny(text, "{|") && strings.ToLower(text) != text {
			plain = append(plain, text)
		}
	}
	if b, err = json.Marshal(plain); err != nil {
		p.t.Fatal(err)
	}
	p.english = string(b)
}

// translated fails for each text of the catalogue that the page shows in English; of what the node says some are the same.
func (p *page) translated(state string) {
	p.t.Helper()
	var found struct {
		English []string
		Foreign int
	}
	others := "code, .docs" // words of the node
	if strings.HasPrefix(state, "/docs") {
		others = "main"
	}
	said, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(() => {
		window.english ??= new Set(`+p.english+`);
		const english = new Set();
		let foreign = 0;
		const look = (text, of) => {
			foreign += text.includes("«") ? 1 : 0;
			if (window.english.has(text.trim()) && !of.closest("`+others+`")) { english.add(text.trim()); }
		};
		const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (walk.nextNode()) { look(walk.currentNode.data, walk.currentNode.parentElement); }
		for (const name of ["aria-label", "title", "placeholder"]) {
			for (const e of document.querySelectorAll("[" + name + "]")) { look(e.getAttribute(name), e); }
		}
		return JSON.stringify({english: [...english], foreign});
	})()`))
	if err == nil {
		err = json.Unmarshal([]byte(said), &found)
	}
	if err != nil {
		p.t.Fatalf("%s: %v", state, err)
	}
	if len(found.English) > 0 || found.Foreign < 20 {
		p.t.Errorf("%s: %q is in English, %d texts are in the other language", state, found.English, found.Foreign)
	}
}
