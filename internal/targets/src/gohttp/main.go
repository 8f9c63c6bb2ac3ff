// Command gohttp is an HTTP server and its clients in one process: handlers,
// middleware, JSON, a store behind a lock. --clients N --requests N (per client)
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"
)

var (
	fLog      = gotruth.Function("main.(*server).log")
	fUser     = gotruth.Function("main.(*server).user")
	fStore    = gotruth.Function("main.(*server).store")
	fParse    = gotruth.Function("main.parse")
	fGet      = gotruth.Function("main.(*users).get")
	fPut      = gotruth.Function("main.(*users).put")
	fReply    = gotruth.Function("main.reply")
	fNotFound = gotruth.Function("main.notFound")
	fClient   = gotruth.Function("main.client")
	fRequest  = gotruth.Function("main.request")
)

type user struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

type users struct {
	mu   sync.RWMutex
	byID map[int]user
}

var errNoUser = errors.New("no such user")

//go:noinline
func (u *users) get(from gotruth.ID, id int) (user, error) {
	fGet.Enter(from)
	u.mu.RLock()
	found, ok := u.byID[id]
	u.mu.RUnlock()
	fGet.Leave()
	if !ok {
		return user{}, errNoUser
	}
	return found, nil
}

//go:noinline
func (u *users) put(from gotruth.ID, one user) {
	fPut.Enter(from)
	u.mu.Lock()
	u.byID[one.ID] = one
	u.mu.Unlock()
	fPut.Leave()
}

type server struct {
	users users
	next  http.Handler
}

// log is the middleware that all requests pass.
//
//go:noinline
func (s *server) log(w http.ResponseWriter, r *http.Request) {
	fLog.Enter(gotruth.Root)
	s.next.ServeHTTP(w, r)
	fLog.Leave()
}

//go:noinline
func parse(from gotruth.ID, r *http.Request) (id int, err error) {
	fParse.Enter(from)
	_, err = fmt.Sscanf(r.URL.Path, "/user/%d", &id)
	fParse.Leave()
	return id, err
}

//go:noinline
func reply(from gotruth.ID, w http.ResponseWriter, value any) {
	fReply.Enter(from)
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
	fReply.Leave()
}

//go:noinline
func notFound(from gotruth.ID, w http.ResponseWriter, err error) {
	fNotFound.Enter(from)
	http.Error(w, err.Error(), http.StatusNotFound)
	fNotFound.Leave()
}

//go:noinline
func (s *server) user(w http.ResponseWriter, r *http.Request) {
	fUser.Enter(fLog)
	id, err := parse(fUser, r)
	if err == nil {
		var one user
		if one, err = s.users.get(fUser, id); err == nil {
			reply(fUser, w, one)
		}
	}
	if err != nil {
		notFound(fUser, w, err)
	}
	fUser.Leave()
}

//go:noinline
func (s *server) store(w http.ResponseWriter, r *http.Request) {
	fStore.Enter(fLog)
	var one user
	id, err := parse(fStore, r)
	if err == nil {
		err = json.NewDecoder(r.Body).Decode(&one)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	} else {
		one.ID = id
		s.users.put(fStore, one)
		reply(fStore, w, one)
	}
	fStore.Leave()
}

// request sends the n-th request of a client: put, get, get of what is missing.
//
//go:noinline
func request(from gotruth.ID, http *http.Client, base string, client, n int) error {
	fRequest.Enter(from)
	err := send(http, base, client, n)
	fRequest.Leave()
	return err
}

func send(c *http.Client, base string, client, n int) error {
	id := client*1_000_000 + n/3
	method, body, status := http.MethodGet, "", http.StatusOK
	switch n % 3 {
	case 0:
		method, body = http.MethodPut, fmt.Sprintf(`{"name": "user %d"}`, id)
	case 2:
		id, status = 999_999_999, http.StatusNotFound
	}
	r, err := http.NewRequest(method, fmt.Sprintf("%s/user/%d", base, id), strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := c.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != status {
		return fmt.Errorf("%s: status %d, want %d", r.URL, response.StatusCode, status)
	}
	if want := fmt.Sprintf("{\"id\":%d,\"name\":\"user %d\"}\n", id, id); status == http.StatusOK && string(text) != want {
		return fmt.Errorf("%s: answer %q, want %q", r.URL, text, want)
	}
	return nil
}

//go:noinline
func client(from gotruth.ID, base string, self, requests int, failures *atomic.Int64) {
	fClient.Enter(from)
	http := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	for n := range requests {
		if err := request(fClient, http, base, self, n); err != nil {
			fmt.Fprintln(os.Stderr, "gohttp:", err)
			failures.Add(1)
		}
	}
	http.CloseIdleConnections()
	fClient.Leave()
}

func main() {
	clients := gotruth.Arg("--clients", 8)
	requests := gotruth.Arg("--requests", 60)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "gohttp:", err)
		os.Exit(4)
	}
	s := &server{users: users{byID: map[int]user{}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /user/{id}", s.user)
	mux.HandleFunc("PUT /user/{id}", s.store)
	s.next = mux
	service := &http.Server{Handler: http.HandlerFunc(s.log)}
	go service.Serve(listener)

	gotruth.Begin()
	var failures atomic.Int64
	var running sync.WaitGroup
	for self := range clients {
		running.Go(func() {
			client(gotruth.Root, "http://"+listener.Addr().String(), self, requests, &failures)
		})
	}
	running.Wait()
	gotruth.End(gotruth.Extra{Values: map[string]int64{"failures": failures.Load()}})
}
