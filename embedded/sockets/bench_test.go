package sockets

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const benchConnects = 2000 // at most net.core.somaxconn, because nobody accepts them

// connectLoop is the benchmark's unmodified program: it connects again and again and prints the median time in nanoseconds.
func connectLoop(kind, address, port string) {
	flags := unix.SOCK_STREAM
	if kind == "nonblocking" {
		flags |= unix.SOCK_NONBLOCK
	}
	number, _ := strconv.Atoi(port)
	target := &unix.SockaddrInet4{Port: number}
	_, _ = fmt.Sscanf(address, "%d.%d.%d.%d", &target.Addr[0], &target.Addr[1], &target.Addr[2], &target.Addr[3])
	times := make([]time.Duration, benchConnects)
	for i := range times {
		fd, err := unix.Socket(unix.AF_INET, flags, 0)
		begin := time.Now()
		if err == nil {
			err = unix.Connect(fd, target)
		}
		times[i] = time.Since(begin)
		if err != nil && err != unix.EINPROGRESS {
			fmt.Println(err)
			os.Exit(1)
		}
		unix.Close(fd)
	}
	slices.Sort(times)
	fmt.Println(times[len(times)/2].Nanoseconds())
	os.Exit(0)
}

// BenchmarkConnect reports the median time of a connect without and with the filter, and the difference.
func BenchmarkConnect(b *testing.B) {
	if err := Supported(); err != nil {
		b.Skip(err)
	}
	for _, kind := range []string{"blocking", "nonblocking"} {
		b.Run(kind, func(b *testing.B) {
			var plain, filtered []float64
			for range b.N {
				plain = append(plain, connectRun(b, kind, "127.19.250.40", Spec{Plain: true}))
				filtered = append(filtered, connectRun(b, kind, "198.19.250.40", Spec{}))
			}
			slices.Sort(plain)
			slices.Sort(filtered)
			without, with := plain[len(plain)/2], filtered[len(filtered)/2]
			b.ReportMetric(without, "µs-direct")
			b.ReportMetric(with, "µs-filtered")
			b.ReportMetric(with-without, "µs-added")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func connectRun(b *testing.B, kind, address string, spec Spec) float64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 19, 250, 40}}); err != nil {
		b.Fatal(err)
	}
	if err := unix.Listen(fd, benchConnects+10); err != nil {
		b.Fatal(err)
	}
	name, _ := unix.Getsockname(fd)
	spec.Argv = []string{"/proc/self/exe", "connect-loop", kind, address, strconv.Itoa(name.(*unix.SockaddrInet4).Port)}
	spec.Env = os.Environ()
	var out strings.Builder
	cmd := &exec.Cmd{Stdout: &out, Stderr: &out}
	if err := pod(40).Start(cmd, spec); err != nil {
		b.Fatal(err)
	}
	_ = cmd.Wait()
	nanoseconds, err := strconv.ParseFloat(strings.TrimSpace(out.String()), 64)
	if err != nil {
		b.Fatal(out.String())
	}
	return nanoseconds / 1000
}
