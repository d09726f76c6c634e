package shim

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxLine is the longest content of one log line in bytes, as containerd has it; longer lines are written in parts.
const maxLine = 16 << 10

const timestamp = "2006-01-02T15:04:05.000000000Z07:00"

// logFile is a container's log in the CRI format: time, stream, F (whole line or its last part) or P (part), content.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File
}

// openLog opens the log for appending. Without a path, nothing is written.
func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	if path == "" {
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return l, l.reopen()
}

// reopen goes on in a new file of the same path, after the old one was renamed.
func (l *logFile) reopen() error {
	if l.path == "" {
		return nil
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.file
	l.file = file
	l.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

// write appends one line. When the disk is full the line is lost as a whole; the container is not stopped for it.
func (l *logFile) write(stream string, partial bool, content []byte) {
	tag := " F "
	if partial {
		tag = " P "
	}
	line := make([]byte, 0, len(timestamp)+len(stream)+len(content)+6)
	line = time.Now().UTC().AppendFormat(line, timestamp)
	line = append(line, ' ')
	line = append(line, stream...)
	line = append(line, tag...)
	line = append(line, content...)
	line = append(line, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return
	}
	if written, err := l.file.Write(line); err != nil && written > 0 {
		if info, err := l.file.Stat(); err == nil { // nobody else writes here
			_ = l.file.Truncate(info.Size() - int64(written))
		}
	}
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// copy writes what a container puts out until it ends.
func (l *logFile) copy(stream string, from io.Reader) {
	lines := bufio.NewReaderSize(from, maxLine)
	for {
		content, err := lines.ReadSlice('\n')
		switch {
		case err == nil:
			l.write(stream, false, content[:len(content)-1])
		case errors.Is(err, bufio.ErrBufferFull):
			l.write(stream, true, content)
		default:
			if len(content) > 0 { // a last line without an end is a part, as containerd has it: readers add no end to it
				l.write(stream, true, content)
			}
			return
		}
	}
}
