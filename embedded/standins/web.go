package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const pages = "/usr/share/nginx/html"

// serve serves nginx's folder of pages at port 80 until it is ended. Options, such as -g "daemon off;", are nginx's own.
func serve([]string) error {
	server := &http.Server{Addr: ":80", Handler: site(pages), ReadHeaderTimeout: 30 * time.Second}
	go func() {
		<-ended()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// site serves a folder's files and logs each request.
func site(folder string) http.Handler {
	files := http.FileServer(http.Dir(folder))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "nginx")
		fmt.Printf("%s - - [%s] \"%s %s %s\"\n", r.RemoteAddr, time.Now().Format("02/Jan/2006:15:04:05 -0700"), r.Method, r.URL.Path, r.Proto)
		if strings.HasSuffix(r.URL.Path, "/index.html") { // Go would send the client to the folder
			r.URL.Path = strings.TrimSuffix(r.URL.Path, "index.html")
		}
		files.ServeHTTP(w, r)
	})
}
