package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// stress holds memory for a time: stress -m 1 --vm-bytes 100M --vm-hang 0 -t SECONDS.
func stress(args []string) error {
	flags := flag.NewFlagSet("stress", flag.ContinueOnError)
	size, seconds := flags.String("vm-bytes", "256M", "memory of each worker"), flags.Int("t", 0, "seconds")
	workers := flags.Int("m", 1, "workers")
	flags.Int("vm-hang", 0, "seconds until memory is freed; 0 is at the end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	unit := map[byte]int{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}[(*size)[len(*size)-1]]
	number, err := strconv.Atoi(strings.TrimRight(*size, "BKMG"))
	if err != nil {
		return fmt.Errorf("--vm-bytes %s: %w", *size, err)
	}
	held := make([]byte, *workers*number*max(unit, 1))
	for i := 0; i < len(held); i += os.Getpagesize() {
		held[i] = 1
	}
	select {
	case <-time.After(time.Duration(*seconds) * time.Second):
	case <-ended():
	}
	held[0] = 0
	return nil
}
