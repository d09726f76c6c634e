package sockets

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// Abstract Unix sockets belong to a network namespace, which a pod has not: their names are made the pod's own by a prefix.
// A name with the prefix, as the kernel tells it to programs, stays as it is.

const (
	pathOffset    = 2   // of sun_path in struct sockaddr_un
	abstractLimit = 107 // bytes of an abstract name, without the NUL that it begins with
)

// abstract is the pod's own socket for an abstract name that a program passes; nil for anything else.
func (p Policy) abstract(raw []byte) *unix.SockaddrUnix {
	if p.Kind != Pod || len(raw) <= pathOffset || binary.NativeEndian.Uint16(raw) != unix.AF_UNIX || raw[pathOffset] != 0 {
		return nil
	}
	return p.own(string(raw[pathOffset+1 : min(len(raw), pathOffset+1+abstractLimit)]))
}

func (p Policy) own(name string) *unix.SockaddrUnix {
	prefix := "labkit/" + p.Address.String() + "/"
	switch {
	case strings.HasPrefix(name, prefix):
	case len(prefix)+len(name) > abstractLimit:
		sum := sha256.Sum256([]byte(name))
		name = prefix + hex.EncodeToString(sum[:])
	default:
		name = prefix + name
	}
	return &unix.SockaddrUnix{Name: "@" + name}
}

// bindUnix binds a pod's abstract name, or one that we choose where the program leaves it to the kernel; false for other addresses.
func (l *listener) bindUnix(raw []byte) bool {
	name := l.policy.abstract(raw)
	choose := l.policy.Kind == Pod && len(raw) == pathOffset && binary.NativeEndian.Uint16(raw) == unix.AF_UNIX
	if name == nil && !choose {
		return false
	}
	s, err := l.socket()
	if err != nil {
		l.done(0, err)
		return true
	}
	defer s.close()
	switch {
	case s.family != unix.AF_UNIX:
		l.pass() // an error of the program's
	case choose:
		l.done(0, s.bindAny(l.policy))
	default:
		l.done(0, unix.Bind(s.fd, name))
	}
	return true
}

func (s socket) bindAny(p Policy) error {
	if name, err := unix.Getsockname(s.fd); err == nil {
		if u, ok := name.(*unix.SockaddrUnix); ok && u.Name != "" && u.Name != "@" {
			return nil // as the kernel has it
		}
	}
	for {
		if err := unix.Bind(s.fd, p.own(rand.Text()[:8])); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
}

// connectUnix connects to a pod's abstract name; false for other addresses.
func (l *listener) connectUnix(raw []byte) bool {
	name := l.policy.abstract(raw)
	if name == nil {
		return false
	}
	s, err := l.socket()
	if err != nil {
		l.done(0, err)
		return true
	}
	if s.family != unix.AF_UNIX {
		s.close()
		l.pass()
		return true
	}
	l.carryOut(s, name)
	return true
}

// rights puts duplicates of the descriptors that a message's control data pass into our own process, for a send that we carry out.
// The sender's identity, which only the sender may tell, is left out. The duplicates have to be closed after the send.
func (l *listener) rights(control []byte) (out []byte, duplicates []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		numbers, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, duplicates, err
		}
		for _, number := range numbers {
			fd, err := l.processes.socket(l.n.Thread, number)
			if err != nil {
				return nil, duplicates, err
			}
			duplicates = append(duplicates, fd)
		}
	}
	if len(duplicates) > 0 {
		out = unix.UnixRights(duplicates...)
	}
	return out, duplicates, l.valid()
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
