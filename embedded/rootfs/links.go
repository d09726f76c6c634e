package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Links makes each mount a link in root, the directory of a container that has no mounts of its own. Read-only cannot be
// enforced there.
func Links(root string, mounts []Mount) error {
	for _, m := range byDepth(mounts) {
		link := filepath.Join(root, m.Target)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := makeRoom(root, link); err != nil {
			return err
		}
		if err := os.Symlink(m.Source, link); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom removes what is in the place of a link: anything of the container's own, but nothing from within a volume except an
// earlier link or an empty directory.
func makeRoom(root, link string) error {
	parent, err := filepath.EvalSymlinks(filepath.Dir(link))
	if err != nil {
		return err
	}
	own, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	if parent == own || strings.HasPrefix(parent, own+"/") {
		return os.RemoveAll(link)
	}
	if err := os.Remove(link); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Rewriter replaces paths of the container by those in its root directory.
type Rewriter struct {
	root  string
	paths []string // longest first
	keep  map[string]bool
}

// NewRewriter replaces the given paths, and everything below them, by the same under root; but not what is to be kept.
func NewRewriter(root string, paths, keep []string) *Rewriter {
	r := &Rewriter{root: root, keep: map[string]bool{}}
	for _, p := range keep {
		r.keep[path.Clean(p)] = true
	}
	for _, p := range slices.Concat(paths, keep) {
		if p = path.Clean(p); p != "/" {
			r.paths = append(r.paths, p)
		}
	}
	slices.SortFunc(r.paths, func(a, b string) int { return len(b) - len(a) })
	return r
}

// String replaces the paths in a text such as a program's argument: each that stands at its beginning or after a character
// that no path has, and that ends there or at a slash.
func (r *Rewriter) String(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		if text[i] == '/' && begins(text[:i]) {
			if found := r.at(text[i:]); found != "" {
				if !r.keep[found] {
					out.WriteString(r.root)
				}
				out.WriteString(found)
				i += len(found)
				continue
			}
		}
		out.WriteByte(text[i])
		i++
	}
	return out.String()
}

// begins tells whether a path may begin after text: not within a name, and of several slashes only in URLs such as
// file:///data and sqlite:////data.
func begins(text string) bool {
	before := strings.TrimRight(text, "/")
	if slashes := len(text) - len(before); slashes > 0 {
		return slashes > 1 && strings.HasSuffix(before, ":")
	}
	return text == "" || !inName(text[len(text)-1])
}

// at is the path that text begins with, or "".
func (r *Rewriter) at(text string) string {
	for _, p := range r.paths {
		if strings.HasPrefix(text, p) && (len(text) == len(p) || !inName(text[len(p)])) {
			return p
		}
	}
	return ""
}

// inName tells whether c is a character of file names, so that /data is not found in /database or http://host/data.
func inName(c byte) bool {
	return c == '.' || c == '_' || c == '-' || c == '~' || c == '+' || c == '%' || c >= 0x80 ||
		c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// Copy copies a directory with what is in it, links as links. It is for an image's files, which each container has a copy of:
// a link to a path of the image leads to it wherever the copy is. Programs of at least `large` bytes are left empty; their paths,
// below from, are returned.
func Copy(from, to string, large int64) (left []string, err error) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return nil, err
	}
	err = filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil || relative == "." {
			return err
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && info.Size() >= large {
			left = append(left, "/"+relative)
			return os.WriteFile(filepath.Join(to, relative), nil, info.Mode().Perm()|0o200)
		}
		return copyEntry(from, name, filepath.Join(to, relative), entry)
	})
	return left, err
}

func copyEntry(root, from, to string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		if err := os.Mkdir(to, info.Mode().Perm()|0o700); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case info.Mode()&os.ModeSymlink != 0:
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(root + link); err == nil && path.IsAbs(link) {
			if link, err = filepath.Rel(filepath.Dir(from), root+link); err != nil {
				return err
			}
		}
		return os.Symlink(link, to)
	case !info.Mode().IsRegular():
		return nil
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	if _, err := target.ReadFrom(source); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}
