package main

import (
	"context"
	"errors"
	"fmt"
	gofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/tonistiigi/fsutil"
)

// files is what a COPY asks for.
type files struct {
	From    string   `json:"from,omitempty"`
	Chmod   string   `json:"chmod,omitempty"`
	Dest    string   `json:"dest"`
	Sources []source `json:"sources"`
}

// source is one source of a COPY as it is written, with what it names in the build context.
type source struct {
	Pattern  string  `json:"pattern"`
	Wildcard bool    `json:"wildcard"`
	Outside  bool    `json:"outside,omitempty"` // it leads out of the context
	Matches  []match `json:"matches"`
}

// match is a file or folder that a source names.
type match struct {
	Path    string   `json:"path"`
	Real    string   `json:"real"` // where it is, when Path is a link; "" when that is outside of the context
	Folder  bool     `json:"folder"`
	Entries []string `json:"entries,omitempty"` // what is below a folder, parents before children
}

// tree is a build context without what .dockerignore excludes.
type tree struct {
	root  string
	paths []string
	known map[string]bool // path → it is a folder
}

func (r *reader) files(patterns []string, found *files) error {
	if r.Context == "" {
		for _, pattern := range patterns {
			found.Sources = append(found.Sources, source{Pattern: pattern})
		}
		return nil
	}
	if r.tree == nil {
		context, err := newTree(r.Context, r.File, r.Limit)
		if err != nil {
			return err
		}
		r.tree = context
	}
	for _, pattern := range patterns {
		one, err := r.tree.source(pattern)
		if err != nil {
			return err
		}
		found.Sources = append(found.Sources, one)
	}
	return nil
}

// newTree walks a context as BuildKit's client does that sends it.
func newTree(root, dockerfile string, limit int) (*tree, error) {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	ignored, err := patterns(dockerfile+".dockerignore", filepath.Join(real, ".dockerignore"))
	if err != nil {
		return nil, err
	}
	whole, err := fsutil.NewFS(real)
	if err != nil {
		return nil, err
	}
	sent, err := fsutil.NewFilterFS(whole, &fsutil.FilterOpt{ExcludePatterns: ignored})
	if err != nil {
		return nil, fmt.Errorf(".dockerignore: %w", err)
	}
	t := &tree{root: real, known: map[string]bool{}}
	err = sent.Walk(context.Background(), "", func(name string, entry gofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if len(t.paths) >= limit {
			return fmt.Errorf("the build context has more than %d files; exclude what is not needed in .dockerignore", limit)
		}
		t.paths = append(t.paths, filepath.ToSlash(name))
		t.known[filepath.ToSlash(name)] = entry.IsDir()
		return nil
	})
	return t, err
}

// patterns of the first ignore file that there is: Docker prefers the one beside the Dockerfile.
func patterns(names ...string) ([]string, error) {
	for _, name := range names {
		file, err := os.Open(name)
		if errors.Is(err, gofs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return ignorefile.ReadAll(file)
	}
	return nil, nil
}

// source finds what one source of a COPY names.
func (t *tree) source(pattern string) (source, error) {
	found := source{Pattern: pattern, Wildcard: wildcard(pattern)}
	relative := path.Clean(strings.TrimLeft(filepath.ToSlash(pattern), "/"))
	if relative == ".." || strings.HasPrefix(relative, "../") {
		found.Outside = true
		return found, nil
	}
	if !found.Wildcard {
		one, err := t.match(relative)
		if one != nil {
			found.Matches = append(found.Matches, *one)
		}
		return found, err
	}
	for _, name := range t.paths {
		if ok, err := filepath.Match(relative, name); err != nil {
			return found, err
		} else if !ok {
			continue
		}
		if one, err := t.match(name); err != nil {
			return found, err
		} else if one != nil {
			found.Matches = append(found.Matches, *one)
		}
	}
	return found, nil
}

// match is the file or folder of a path, links followed; nil where the context has none.
func (t *tree) match(name string) (*match, error) {
	found := &match{Path: name}
	real, err := filepath.EvalSymlinks(filepath.Join(t.root, name))
	if errors.Is(err, gofs.ErrNotExist) && !t.has(name) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	inside, err := filepath.Rel(t.root, real)
	if err != nil {
		return nil, err
	}
	inside = filepath.ToSlash(inside)
	if inside == ".." || strings.HasPrefix(inside, "../") {
		return found, nil
	}
	if !t.has(inside) {
		return nil, nil
	}
	found.Real, found.Folder = inside, inside == "." || t.known[inside]
	if found.Folder {
		found.Entries = t.below(inside)
	}
	return found, nil
}

func (t *tree) has(name string) bool {
	_, ok := t.known[name]
	return ok || name == "."
}

// below are the paths inside a folder, relative to it.
func (t *tree) below(folder string) []string {
	if folder == "." {
		return slices.Clone(t.paths)
	}
	var found []string
	for _, name := range t.paths {
		if inner, ok := strings.CutPrefix(name, folder+"/"); ok {
			found = append(found, inner)
		}
	}
	return found
}

// wildcard tells whether a source is a pattern, as BuildKit does.
func wildcard(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}
