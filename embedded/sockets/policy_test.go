package sockets

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

func TestPolicies(t *testing.T) {
	dns := netip.MustParseAddrPort("127.96.0.10:53")
	policies := map[string]Policy{
		Pod:    {Kind: Pod, Address: netip.MustParseAddr("127.18.1.5"), DNS: dns},
		Host:   {Kind: Host},
		Client: {Kind: Client, DNS: dns},
	}
	const same = ""
	for _, c := range []struct{ kind, call, from, to string }{
		{Pod, "bind", "0.0.0.0:80", "127.18.1.5:10080"},
		{Pod, "bind", "0.0.0.0:8080", "127.18.1.5:8080"},
		{Pod, "bind", "127.0.0.1:8080", "127.18.1.5:8080"},
		{Pod, "bind", "198.18.1.5:443", "127.18.1.5:10443"},
		{Pod, "bind", "127.18.1.5:443", "127.18.1.5:10443"},
		{Pod, "bind", "127.18.1.5:8080", same},
		{Pod, "bind", "[::]:80", "127.18.1.5:10080"},
		{Pod, "bind", "[::1]:0", "127.18.1.5:0"},
		{Pod, "bind", "[::ffff:0.0.0.0]:80", "127.18.1.5:10080"},
		{Pod, "bind", "198.18.1.6:80", same}, // another pod's: the kernel refuses
		{Pod, "bind", "127.0.0.5:8080", same},
		{Pod, "bind", "192.0.2.1:8080", same},
		{Pod, "connect", "127.0.0.1:80", "127.18.1.5:10080"},
		{Pod, "connect", "[::1]:8080", "127.18.1.5:8080"},
		{Pod, "connect", "0.0.0.0:8080", "127.18.1.5:8080"},
		{Pod, "connect", "[::]:8080", "127.18.1.5:8080"},
		{Pod, "connect", "198.18.2.9:80", "127.18.2.9:10080"},
		{Pod, "connect", "[::ffff:198.19.2.9]:8080", "127.19.2.9:8080"},
		{Pod, "connect", "127.96.0.1:443", "127.96.0.1:10443"},
		{Pod, "connect", "127.240.0.1:80", "127.240.0.1:10080"},
		{Pod, "connect", "127.96.7.7:8080", same},
		{Pod, "connect", "127.96.7.7:10080", "127.104.7.7:10080"},
		{Pod, "connect", "127.96.7.7:53", "127.96.7.7:10053"},   // a Service of the user's that is a name server
		{Pod, "connect", "127.240.0.7:53", "127.240.0.7:10053"}, // likewise
		{Pod, "connect", "127.96.0.10:53", "127.96.0.10:10053"},
		{Client, "connect", "127.96.7.7:53", "127.96.7.7:10053"},
		{Pod, "connect", "192.0.2.1:53", "127.96.0.10:10053"},
		{Pod, "connect", "[2001:db8::1]:53", "127.96.0.10:10053"},
		{Pod, "connect", "127.0.0.53:53", "127.96.0.10:10053"},
		{Pod, "connect", "198.18.2.9:53", "127.18.2.9:10053"}, // a pod that is a name server
		{Pod, "connect", "127.18.2.9:53", "127.18.2.9:10053"},
		{Pod, "connect", "192.0.2.1:443", same},
		{Pod, "connect", "127.0.0.5:80", same},
		{Pod, "connect", "[2001:db8::1]:80", same},
		{Host, "bind", "0.0.0.0:80", same},
		{Host, "bind", "198.18.0.1:10250", "127.18.0.1:10250"},
		{Host, "bind", "127.96.0.10:53", "127.96.0.10:10053"},
		{Host, "connect", "127.0.0.1:80", same},
		{Host, "connect", "198.18.2.9:80", "127.18.2.9:10080"},
		{Host, "connect", "127.96.0.1:443", "127.96.0.1:10443"},
		{Host, "connect", "192.0.2.1:53", same},
		{Client, "bind", "0.0.0.0:8080", same},
		{Client, "connect", "127.0.0.1:8080", same},
		{Client, "connect", "198.18.2.9:80", "127.18.2.9:10080"},
		{Client, "connect", "192.0.2.1:53", "127.96.0.10:10053"},
	} {
		p := policies[c.kind]
		rewrite := p.bind
		if c.call == "connect" {
			rewrite = p.connect
		}
		got, changed := rewrite(netip.MustParseAddrPort(c.from))
		if changed != (c.to != same) || changed && got.String() != c.to {
			t.Errorf("%s %s %s: %v (%v), want %q", c.kind, c.call, c.from, got, changed, c.to)
		}
	}
}

func TestPolicyIsChecked(t *testing.T) {
	for _, p := range []Policy{{}, {Kind: "nonsense"}, {Kind: Pod}, {Kind: Pod, Address: netip.MustParseAddr("192.0.2.1")}, {Kind: Host, Address: netip.MustParseAddr("192.0.2.1")}} {
		if p.check() == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

func TestSourceIsTheAddressThatPeersKnow(t *testing.T) {
	address, peer := netip.MustParseAddr("127.18.1.1"), netip.MustParseAddrPort("127.18.2.9:53")
	for _, p := range []Policy{{Kind: Pod, Address: address}, {Kind: Host, Address: address}, {Kind: Client, Address: address}} {
		if got := p.source(peer); got != address {
			t.Errorf("%s to a pod: %v", p.Kind, got)
		}
		if got := p.source(netip.MustParseAddrPort("127.0.0.1:53")); got.IsValid() {
			t.Errorf("%s to the machine: %v", p.Kind, got)
		}
	}
	if got := (Policy{Kind: Host}).source(peer); got.IsValid() {
		t.Errorf("a component: %v", got)
	}
}

// TestFilter runs the filter's program for both processors in a virtual machine.
func TestFilter(t *testing.T) {
	const allow, notify, absent = retAllow, retNotify, retErrno | 38
	for name, n := range map[string]numbers{
		"amd64": {archX86, 49, 42, 50, 44, 46, 307, 425},
		"arm64": {archARM, 200, 203, 201, 206, 211, 269, 425},
	} {
		var raw []bpf.RawInstruction
		for _, i := range n.program() {
			raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
		}
		instructions, known := bpf.Disassemble(raw)
		machine, err := bpf.NewVM(instructions)
		if !known || err != nil {
			t.Fatal(known, err)
		}
		for _, c := range []struct {
			number, arch uint32
			address      uint64
			want         uint32
		}{
			{n.bind, n.arch, 0, notify}, {n.connect, n.arch, 0, notify}, {n.listen, n.arch, 0, notify}, {n.sendmsg, n.arch, 0, notify}, {n.sendmmsg, n.arch, 0, notify},
			{n.sendto, n.arch, 0, allow}, {n.sendto, n.arch, 0x1000, notify}, {n.sendto, n.arch, 0x100000000, notify},
			{n.ioUringSetup, n.arch, 0, absent}, {1, n.arch, 0, allow},
			{n.connect, 0x40000003, 0, allow},      // a 32-bit program, whose numbers mean other calls
			{n.connect | x32Bit, n.arch, 0, allow}, // likewise
		} {
			data := make([]byte, 64) // struct seccomp_data as the virtual machine reads it: words in network order
			binary.BigEndian.PutUint32(data[offNumber:], c.number)
			binary.BigEndian.PutUint32(data[offArch:], c.arch)
			binary.BigEndian.PutUint32(data[offSendtoAddress:], uint32(c.address))
			binary.BigEndian.PutUint32(data[offSendtoAddress+4:], uint32(c.address>>32))
			if got, err := machine.Run(data); err != nil || uint32(got) != c.want {
				t.Errorf("%s: call %d of %#x: %#x (%v), want %#x", name, c.number, c.arch, got, err, c.want)
			}
		}
		if got := native(); got.arch == n.arch && got != n {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
