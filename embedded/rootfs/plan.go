// Package rootfs gives a container its file system: the host's programs, the image's files, and volumes at the paths that
// the pod names.
//
// Where mount namespaces are allowed, Enter builds it from bind mounts in a namespace of the container's own. Where they are
// not, Links makes links in a directory of the container's own, and a Rewriter changes the paths in its command.
package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Mount shows a file or directory of the host at a path of the container.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Volume   bool   `json:"volume,omitempty"` // it stays writable where everything else is read-only
	Copy     bool   `json:"copy,omitempty"`   // a small file, copied where that is possible: a mount could not be moved or removed
}

// Plan is the file system of a container, as passed to Enter.
type Plan struct {
	// Stage is an empty directory; the new root is built over it.
	Stage string `json:"stage,omitempty"`
	// Mounts are done in the order of their depth; of two at one path, the last counts.
	Mounts []Mount `json:"mounts,omitempty"`
	// ReadOnly lets nothing but volumes be written to (Linux 5.12).
	ReadOnly bool `json:"read_only,omitempty"`
	// Capabilities are those that a container of a node run by root keeps beside the usual ones; "ALL" keeps everything.
	Capabilities []string `json:"capabilities,omitempty"`
	// Proc is where the list of processes comes from: the host's ("" as long as there is no process namespace), NewProc, or the
	// path of a /proc.
	Proc string `json:"proc,omitempty"`
	// Join is the path of a mount namespace (as in /proc/PID/ns/mnt) to enter, instead of building one.
	Join string `json:"join,omitempty"`
	// Stay keeps the file system as it is; only capabilities are dropped.
	Stay bool `json:"stay,omitempty"`
}

// NewProc is the list of the processes that share a namespace with the one that enters the plan.
const NewProc = "new"

// Encode is p in the form that Enter takes.
func (p Plan) Encode() json.RawMessage {
	raw, _ := json.Marshal(p) // strings and booleans only
	return raw
}

// node is a directory of the container in which something differs from the host.
type node struct {
	mount    *Mount
	file     bool // the mount is a file
	children map[string]*node
}

func (n *node) child(name string) *node {
	if n.children == nil {
		n.children = map[string]*node{}
	}
	if n.children[name] == nil {
		n.children[name] = &node{}
	}
	return n.children[name]
}

// maxLinks bounds the symbolic links in a mount's path, as the kernel does.
const maxLinks = 40

// tree sorts mounts into the directories they are in. A link of the host on the way is followed (/var/run is /run), except
// below a mount, where the host's files are not seen.
func tree(mounts []Mount) (*node, error) {
	root := &node{}
	for _, m := range byDepth(mounts) {
		info, err := os.Stat(m.Source)
		if err != nil {
			return nil, fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
		}
		place, err := root.place(m.Target)
		if err != nil {
			return nil, fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
		}
		place.mount, place.file = &m, !info.IsDir()
	}
	return root, nil
}

// byDepth orders mounts so that each comes after those it may be within.
func byDepth(mounts []Mount) []Mount {
	ordered := slices.Clone(mounts)
	slices.SortStableFunc(ordered, func(a, b Mount) int { return len(split(a.Target)) - len(split(b.Target)) })
	return ordered
}

// place is the node of an absolute path.
func (n *node) place(target string) (*node, error) {
	if !path.IsAbs(target) {
		return nil, errors.New("its path is not absolute")
	}
	rest, done, links := split(target), "", 0
	current, hidden := n, false
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if !hidden {
			if link, err := os.Readlink(done + "/" + name); err == nil {
				if links++; links > maxLinks {
					return nil, syscall.ELOOP
				}
				if !path.IsAbs(link) {
					link = path.Join("/"+done, link)
				}
				rest = append(split(link), rest...)
				current, done = n, ""
				continue
			}
		}
		current, done = current.child(name), done+"/"+name
		hidden = hidden || current.mount != nil
	}
	if current == n {
		return nil, errors.New("the root directory cannot be replaced")
	}
	return current, nil
}

func split(target string) []string {
	return strings.FieldsFunc(path.Clean(target), func(r rune) bool { return r == '/' })
}

// merged are directories of the host that an image's files are added to; others are replaced by the image's.
var merged = map[string]bool{}

func init() {
	for _, dir := range strings.Fields("bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr var") {
		merged["/"+dir] = true
	}
}

// replacedBelow are directories whose entries are whole programs or data: an image's entry replaces the host's.
var replacedBelow = map[string]bool{"/opt": true, "/srv": true, "/home": true, "/mnt": true, "/media": true}

// Grafts lists the paths of an image's files that must be shown over the host's file system: the topmost ones that the host
// does not have, and single files where it has their directory.
func Grafts(image string) ([]string, error) {
	var out []string
	var walk func(dir string) error
	walk = func(dir string) error {
		entries, err := os.ReadDir(filepath.Join(image, dir))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			target := path.Join(dir, entry.Name())
			info, err := os.Stat(target)
			below := entry.IsDir() && err == nil && info.IsDir() && (dir != "/" || merged[target]) && !replacedBelow[dir]
			if !below {
				out = append(out, target)
			} else if err := walk(target); err != nil {
				return err
			}
		}
		return nil
	}
	return out, walk("/")
}
