package vip

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
)

// BenchmarkRequest compares requests through the proxy with requests straight to the endpoint: over one kept connection
// and with a fresh connection each.
func BenchmarkRequest(b *testing.B) {
	listener, err := net.Listen("tcp4", "127.19.251.60:8080")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
	go server.Serve(listener)
	defer server.Close()
	p := NewProxy(1024, func(netip.Addr) string { return "" }, slog.New(slog.DiscardHandler))
	defer p.Close()
	p.Apply(map[Listen]Rule{{"tcp", addr(front)}: {Port: "t/t:http", Backends: []Backend{{Address: addr("127.19.251.60:8080")}}}})
	for _, kept := range []bool{true, false} {
		for name, url := range map[string]string{"direct": "http://127.19.251.60:8080", "proxied": "http://" + front} {
			b.Run(fmt.Sprintf("%s/kept=%v", name, kept), func(b *testing.B) {
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !kept}}
				for b.Loop() {
					response, err := client.Get(url)
					if err != nil {
						b.Fatal(err)
					}
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
			})
		}
	}
}
