package rootfs

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// names of the capabilities by their numbers, as linux/capability.h has them.
var names = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
	SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
	MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// usual are those that containerd leaves to root in a container.
var usual = strings.Fields(`CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD
	AUDIT_WRITE SETFCAP`)

// dropCapabilities gives up what a user namespace brought. Real root keeps what it has in other containers, and what is added.
func dropCapabilities(added []string) error {
	if slices.Contains(added, "ALL") {
		added = names
	}
	kept := map[int]bool{}
	if root, err := realRoot(); err != nil {
		return err
	} else if root {
		for number, name := range names {
			kept[number] = slices.Contains(usual, name) || slices.Contains(added, name)
		}
	}
	var set [2]unix.CapUserData
	for number := 0; number <= unix.CAP_LAST_CAP; number++ {
		if kept[number] {
			set[number/32].Permitted |= 1 << (number % 32)
			continue
		}
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0)
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for i := range set { // no more than it has
		set[i].Permitted &= have[i].Permitted
		set[i].Effective = set[i].Permitted
	}
	if err := unix.Capset(&header, &set[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// realRoot tells whether this process is root of the machine, and not only in a user namespace.
func realRoot() (bool, error) {
	ids, err := os.ReadFile("/proc/thread-self/uid_map")
	return strings.Join(strings.Fields(string(ids)), " ") == "0 0 4294967295", err
}
