package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Files of a node's data directory that Discover reads.
const (
	// TokenFile holds the token of the node's operator.
	TokenFile = "admin.token"
	// APIFile says where the node's API is.
	APIFile = "api.json"
)

// maxSmallFile bounds TokenFile, APIFile and a CA file, in bytes.
const maxSmallFile = 1 << 20

// Endpoint is the content of APIFile.
type Endpoint struct {
	URL    string `json:"url"`
	CAFile string `json:"caFile,omitempty"` // absolute, or relative to the data directory
}

// Env is what Discover reads from.
type Env struct {
	Getenv func(name string) string
	Open   func(name string) (fs.File, error)
}

// System returns the process's environment and the machine's files.
func System() Env {
	return Env{Getenv: os.Getenv, Open: func(name string) (fs.File, error) { return os.Open(name) }}
}

// Discover returns how to reach a node: the one whose data directory is data,
// or with data empty the one that OVGATE_URL, OVGATE_TOKEN and OVGATE_CA name.
func Discover(env Env, data string) (Options, error) {
	if data != "" {
		return fromData(env, data)
	}
	o := Options{URL: env.Getenv("OVGATE_URL"), Token: strings.TrimSpace(env.Getenv("OVGATE_TOKEN"))}
	if _, err := checkURL(o.URL); err != nil {
		return Options{}, err
	}
	if name := env.Getenv("OVGATE_CA"); name != "" {
		ca, err := readSmall(env, name, nil)
		if err != nil {
			return Options{}, fmt.Errorf("OVGATE_CA: %w", err)
		}
		o.CA = ca
	}
	return o, nil
}

// fromData reads APIFile, the CA it names, and TokenFile.
func fromData(env Env, data string) (Options, error) {
	name := filepath.Join(data, APIFile)
	text, err := readSmall(env, name, nil)
	if err != nil {
		return Options{}, explain(err, data)
	}
	var e Endpoint
	if err := json.Unmarshal(text, &e); err != nil {
		return Options{}, fmt.Errorf("%s: %w; it is written anew when ovgate serve starts", name, err)
	}
	o := Options{URL: e.URL}
	if e.CAFile != "" {
		ca := e.CAFile
		if !filepath.IsAbs(ca) {
			ca = filepath.Join(data, ca)
		}
		if o.CA, err = readSmall(env, ca, nil); err != nil {
			return Options{}, explain(err, data)
		}
	}
	if o.Token, err = ReadToken(env, filepath.Join(data, TokenFile)); err != nil {
		return Options{}, explain(err, data)
	}
	return o, nil
}

// explain adds the remedy to an error about a file of a data directory.
func explain(err error, data string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; start the node with ovgate serve --data %s, or set OVGATE_URL for a node elsewhere", err, data)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run this as the user that runs ovgate serve, or use OVGATE_URL and a token of your own", err)
	}
	return err
}

// private refuses a file that others than its owner may read (invariant 2).
func private(name string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s can be read by others (mode %04o), so it is not used; run chmod 600 %s, and restart ovgate serve after removing it if somebody may have read it", name, mode, name)
	}
	return nil
}

// readSmall reads a regular file that passes check.
func readSmall(env Env, name string, check func(string, fs.FileInfo) error) ([]byte, error) {
	f, err := env.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if check != nil {
		if err := check(name, info); err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSmallFile+1))
	if err == nil && len(text) > maxSmallFile {
		err = fmt.Errorf("%s is longer than %d bytes", name, maxSmallFile)
	}
	return text, err
}

// ReadToken returns the bearer token in a file that only its owner can read.
func ReadToken(env Env, name string) (string, error) {
	text, err := readSmall(env, name, private)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("%s is empty; a token is one line", name)
	}
	return token, nil
}
