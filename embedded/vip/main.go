package vip

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"labkit.dev/embedded/loopback"
)

// HealthPort is where /healthz and /metrics are served on the control plane's address: kube-proxy's port.
const HealthPort = 10256

// Main is `kube vip`: it returns when SIGTERM or SIGINT comes, or why it cannot work.
func Main(args []string, output io.Writer) error {
	f := flag.NewFlagSet("vip", flag.ContinueOnError)
	f.SetOutput(output)
	kubeconfig := f.String("kubeconfig", "", "kubeconfig of system:labkit-vip")
	slot := f.Int("slot", 0, "the cluster's slot in the address plan, 0 to 7")
	volumes := f.String("volumes-dir", "", "directory for persistent volumes of StorageClasses with provisioner "+Provisioner)
	certFile := f.String("tls-cert-file", "", "serving certificate of /healthz and /metrics; plain HTTP without one")
	keyFile := f.String("tls-private-key-file", "", "its key")
	clientCAFile := f.String("client-ca-file", "", "clients need a certificate of this authority")
	verbose := f.Bool("verbose", false, "log refused connections too")
	if err := f.Parse(args); err != nil {
		return err
	}
	plan, err := PlanOf(*slot)
	if err != nil {
		return err
	}
	rest, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	rest.UserAgent, rest.QPS, rest.Burst = "labkit-vip", 50, 100
	rest.ContentType, rest.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	controller := New(Config{Client: client, Plan: plan, VolumesDir: *volumes, Table: tablePath(),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server, err := controller.listenHealth(*certFile, *keyFile, *clientCAFile)
	if err != nil {
		return err
	}
	defer server.Close()
	return controller.Run(ctx)
}

func (c *Controller) listenHealth(certFile, keyFile, clientCAFile string) (*http.Server, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := c.Healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", c.proxy.stats.handler())
	address := net.JoinHostPort(loopback.Map(controlPlane(c.config.Plan)).String(), fmt.Sprint(HealthPort))
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, err
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, err
		}
		settings := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		if clientCAFile != "" {
			authority, err := os.ReadFile(clientCAFile)
			if err != nil {
				return nil, err
			}
			settings.ClientAuth, settings.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
			if !settings.ClientCAs.AppendCertsFromPEM(authority) {
				return nil, fmt.Errorf("--client-ca-file: no certificate in %s", clientCAFile)
			}
		}
		listener = tls.NewListener(listener, settings)
	}
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			c.config.Log.Error("health server ended", "error", err)
		}
	}()
	return server, nil
}
