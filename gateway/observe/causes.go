package observe

import _ "embed"

//go:embed README.md
var causes string

// Causes returns the page, as Markdown, that lists every cause of bad health with its remedy.
func Causes() string { return causes }
