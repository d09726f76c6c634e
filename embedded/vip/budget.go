package vip

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// reserve decides how much stays free for others: one Service port may hold as many connections as reserve times those
	// that are free. A single one gets four fifths of all, two get four ninths each, and so on: some are always left.
	reserve = 4
	// patience is how long new clients of a full Service port wait for a place before they are refused.
	patience = 2 * time.Second
	// logPause is between two lines about the same thing.
	logPause = 10 * time.Second
)

// budget shares the connections and UDP flows that the proxy can hold among the Service ports.
type budget struct {
	mu     sync.Mutex
	limit  int
	used   int
	shares map[string]*share
}

type share struct {
	used    int
	full    time.Time // since when, if it is
	refused int       // since the last line about it
	lines   rate.Sometimes
}

func newBudget(limit int) *budget { return &budget{limit: limit, shares: map[string]*share{}} }

// of is the share of a Service port. The caller holds the lock.
func (b *budget) of(port string) *share {
	s := b.shares[port]
	if s == nil {
		s = &share{lines: rate.Sometimes{Interval: logPause}}
		b.shares[port] = s
	}
	return s
}

// take takes a place for a Service port, and gives it back by what it returns; false when there is none. Then waiting may help,
// unless the port has been full for longer than patience.
func (b *budget) take(port string) (back func(), taken, wait bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(port)
	if s.used >= reserve*(b.limit-b.used) {
		if s.full.IsZero() {
			s.full = time.Now()
		}
		return nil, false, time.Since(s.full) < patience
	}
	s.full = time.Time{}
	s.used++
	b.used++
	return sync.OnceFunc(func() { b.give(s) }), true, false
}

func (b *budget) give(s *share) {
	b.mu.Lock()
	s.used--
	b.used--
	b.mu.Unlock()
}

// held is how many connections and flows there are.
func (b *budget) held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// refuse counts a client that got no place, and calls report now and then with how many there were since, and how many the
// Service port holds.
func (b *budget) refuse(port string, report func(refused, held int)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(port)
	s.refused++
	s.lines.Do(func() {
		report(s.refused, s.used)
		s.refused = 0
	})
}

// forget drops the shares of Service ports that are not served any more, and returns their names.
func (b *budget) forget(served map[string]bool) (forgotten []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for port, s := range b.shares {
		if !served[port] && s.used == 0 {
			delete(b.shares, port)
			forgotten = append(forgotten, port)
		}
	}
	return forgotten
}
