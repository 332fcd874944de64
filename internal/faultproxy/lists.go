package faultproxy

import (
	"net/http"
	"slices"
	"sync"
)

// Bounds of the answers that are kept (F3): 16 MiB in all. A longer list is not kept.
const (
	maxURLs    = 32
	maxAnswers = 4 // of a URL
	listLimit  = 128 << 10
)

// answer is one to a list.
type answer struct {
	header http.Header
	body   []byte
}

// lists are the last answers to lists, by URL.
type lists struct {
	mu      sync.Mutex
	urls    []string // in the order of their first answer
	answers map[string][]answer
}

// note keeps an answer, for which the oldest URL may have to go.
func (l *lists) note(url string, a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answers == nil {
		l.answers = map[string][]answer{}
	}
	if _, known := l.answers[url]; !known {
		if len(l.urls) == maxURLs {
			delete(l.answers, l.urls[0])
			l.urls = slices.Delete(l.urls, 0, 1)
		}
		l.urls = append(l.urls, url)
	}
	all := append(l.answers[url], a)
	l.answers[url] = all[max(0, len(all)-maxAnswers):]
}

// earlier returns one of the answers to a URL; pick draws a number below n.
func (l *lists) earlier(url string, pick func(n int64) int64) (answer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.answers[url]
	if len(all) == 0 {
		return answer{}, false
	}
	return all[pick(int64(len(all)))], true
}
