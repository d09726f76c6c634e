package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// query is what a lookup is told to do.
type query struct {
	network, server string
	search, short   bool
	class           uint16
}

// resolver is /etc/resolv.conf, with the variables of resolver(5) where a pod has no file of its own.
func resolver() (*dns.ClientConfig, error) {
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	if domains := os.Getenv("LOCALDOMAIN"); domains != "" {
		config.Search, config.Ndots = strings.Fields(domains), 5
	}
	if len(config.Servers) == 0 {
		return nil, errors.New("/etc/resolv.conf names no server")
	}
	return config, nil
}

// ask looks a name up, in each of the search domains if it is to, and returns the first answer that has something.
func (q query) ask(name string) (*dns.Msg, error) {
	config, err := resolver()
	if err != nil {
		return nil, err
	}
	names := []string{dns.Fqdn(name)}
	if q.search {
		names = config.NameList(name)
	}
	server := net.JoinHostPort(config.Servers[0], config.Port)
	if q.server != "" {
		server = net.JoinHostPort(q.server, "53")
	}
	client := &dns.Client{Net: q.network, Timeout: 5 * time.Second}
	var answer *dns.Msg
	for _, each := range names {
		message := new(dns.Msg).SetQuestion(each, q.class)
		if q.network != "tcp" {
			message.SetEdns0(4096, false)
		}
		if answer, _, err = client.Exchange(message, server); err != nil {
			return nil, err
		}
		if len(answer.Answer) > 0 {
			return answer, nil
		}
	}
	return answer, nil
}

// dig prints the answer section: dig [+short] [+search] [+tcp] [@SERVER] NAME [TYPE]. Other +options are taken as set.
func dig(args []string) error {
	q := query{class: dns.TypeA}
	name := ""
	for _, arg := range args {
		known, isType := dns.StringToType[strings.ToUpper(arg)]
		switch {
		case arg == "+tcp" || arg == "+vc":
			q.network = "tcp"
		case arg == "+short":
			q.short = true
		case arg == "+search":
			q.search = true
		case strings.HasPrefix(arg, "+") || strings.HasPrefix(arg, "-"):
		case strings.HasPrefix(arg, "@"):
			q.server = arg[1:]
		case isType && name != "":
			q.class = known
		default:
			name = arg
		}
	}
	answer, err := q.ask(name)
	if err != nil {
		return err
	}
	for _, record := range answer.Answer {
		text := record.String()
		if q.short {
			text = strings.TrimPrefix(text, record.Header().String())
		}
		fmt.Println(text)
	}
	return nil
}

// nslookup prints a name's addresses, and fails where it has none.
func nslookup(args []string) error {
	if len(args) == 0 {
		return errors.New("a name is needed")
	}
	q := query{class: dns.TypeA, search: true}
	if len(args) > 1 {
		q.server = args[1]
	}
	answer, err := q.ask(args[0])
	if err != nil {
		return err
	}
	if len(answer.Answer) == 0 {
		return fmt.Errorf("server can't find %s: %s", args[0], dns.RcodeToString[answer.Rcode])
	}
	for _, record := range answer.Answer {
		fmt.Printf("Name:\t%s\n", record.Header().Name)
		switch r := record.(type) {
		case *dns.A:
			fmt.Printf("Address: %s\n", r.A)
		case *dns.CNAME:
			fmt.Printf("canonical name = %s\n", r.Target)
		}
	}
	return nil
}
