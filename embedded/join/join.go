// Package join is the first phase of `kubeadm join`, discovery, with kubeadm's own code: find the cluster by its
// cluster-info ConfigMap, trust it because of a bootstrap token and its authority's public key, and write the kubeconfig
// with which the kubelet then asks for its certificate.
package join

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	"k8s.io/kubernetes/cmd/kubeadm/app/discovery"
)

// Options are the flags of `kube join`, named as those of `kubeadm join`.
type Options struct {
	Server     string // host:port of the API server
	CACertHash string // "sha256:" and the hash of the authority's public key in hex
	Timeout    time.Duration
	Kubeconfig string // written
	token      string // public and secret part; from standard input, since arguments are public on a machine
}

// ParseFlags reads the command line of `kube join`, and the token from input.
func ParseFlags(args []string, input io.Reader, output io.Writer) (*Options, error) {
	o := &Options{}
	f := flag.NewFlagSet("join", flag.ContinueOnError)
	f.SetOutput(output)
	f.StringVar(&o.Server, "server", "", "address of the API server, host:port")
	f.StringVar(&o.CACertHash, "discovery-token-ca-cert-hash", "", "sha256:HEX of the public key that the cluster's authority must have")
	f.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "give up after so long")
	f.StringVar(&o.Kubeconfig, "bootstrap-kubeconfig", "", "file to write; the token comes from standard input")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"server": o.Server, "discovery-token-ca-cert-hash": o.CACertHash, "bootstrap-kubeconfig": o.Kubeconfig} {
		if value == "" {
			return nil, fmt.Errorf("--%s is missing", name)
		}
	}
	line, err := bufio.NewReader(input).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("token: %w", err)
	}
	if o.token = strings.TrimSpace(line); o.token == "" {
		return nil, errors.New("there is no token on standard input")
	}
	return o, nil
}

// Discover writes the kubeconfig, or says with kubeadm's words why the cluster or the token cannot be trusted.
func Discover(o *Options) error {
	verbose()
	config := &kubeadm.JoinConfiguration{
		Discovery: kubeadm.Discovery{
			BootstrapToken: &kubeadm.BootstrapTokenDiscovery{
				Token: o.token, APIServerEndpoint: o.Server, CACertHashes: []string{o.CACertHash},
			},
			TLSBootstrapToken: o.token,
		},
		Timeouts: &kubeadm.Timeouts{Discovery: &metav1.Duration{Duration: o.Timeout}},
	}
	found, err := discovery.For(nil, config)
	if err != nil {
		return err
	}
	return clientcmd.WriteToFile(*found, o.Kubeconfig) // mode 0600
}

// verbose lets kubeadm tell each step, as `kubeadm join --v=1` does.
func verbose() {
	f := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(f)
	_ = f.Set("v", "1")
}
