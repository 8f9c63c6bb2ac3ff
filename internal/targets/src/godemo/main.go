// Command godemo is the demo target for machines without a C compiler: the same
// small service as demo.c, with the same flags. Two workers take requests from a
// queue, parse them, check who asks, query a pretended database and render an
// answer. What a request does depends on the seed and its number alone.
//
//	godemo [--requests N] [--seed S] [--pause MICROSECONDS]
//
// runs until SIGTERM, or for N requests. With --wait it follows the protocol of
// the targets; with --auto it prints its truth at the end instead of a summary.
package main

import (
	"fmt"
	"html"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/targets/src/gotruth"
)

var (
	fHandle      = gotruth.Function("main.handleRequest")
	fParse       = gotruth.Function("main.parse")
	fReadLine    = gotruth.Function("main.readLine")
	fParseHeader = gotruth.Function("main.parseHeader")
	fAuth        = gotruth.Function("main.auth")
	fFindSession = gotruth.Function("main.findSession")
	fCheckToken  = gotruth.Function("main.checkToken")
	fQuery       = gotruth.Function("main.dbQuery")
	fPlan        = gotruth.Function("main.plan")
	fFetchRow    = gotruth.Function("main.fetchRow")
	fReadPage    = gotruth.Function("main.readPage")
	fSortRows    = gotruth.Function("main.sortRows")
	fRender      = gotruth.Function("main.render")
	fEscape      = gotruth.Function("main.escape")
	fWriteBody   = gotruth.Function("main.writeBody")
	fRenderError = gotruth.Function("main.renderError")
	fLogLine     = gotruth.Function("main.logLine")
)

const (
	workers = 2
	maxRows = 8
)

// dice is splitmix64.
func dice(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

type kind int

const (
	page kind = iota
	denied
	missing
	report
)

type request struct {
	number, dice uint64
	line         string
	kind         kind
	user         string
}

type row struct {
	key  uint64
	name string
}

//go:noinline
func readLine(r *request) {
	fReadLine.Enter(fParse)
	r.line = fmt.Sprintf("GET /item/%d HTTP/1.1", r.dice%1000)
	fReadLine.Leave()
}

//go:noinline
func parseHeader(r *request, index int) uint64 {
	fParseHeader.Enter(fParse)
	sum := uint64(index)
	for i := range len(r.line) {
		sum = sum*31 + uint64(r.line[i])
	}
	fParseHeader.Leave()
	return sum
}

//go:noinline
func parse(r *request) {
	fParse.Enter(fHandle)
	readLine(r)
	for i := range 2 + int(r.dice%3) {
		parseHeader(r, i)
	}
	switch r.dice >> 8 & 15 {
	case 0:
		r.kind = denied
	case 1:
		r.kind = missing
	case 2:
		r.kind = report
	}
	fParse.Leave()
}

//go:noinline
func findSession(r *request) {
	fFindSession.Enter(fAuth)
	r.user = fmt.Sprintf("user%d", r.dice%100)
	fFindSession.Leave()
}

//go:noinline
func checkToken(r *request) bool {
	fCheckToken.Enter(fAuth)
	hash := r.dice
	for range 2000 { // as a key derivation would
		hash = dice(hash)
	}
	fCheckToken.Leave()
	return hash != 0 && r.kind != denied
}

//go:noinline
func auth(r *request) bool {
	fAuth.Enter(fHandle)
	findSession(r)
	good := checkToken(r)
	fAuth.Leave()
	return good
}

// readPage is slow once in eight times: the page is not in memory.
//
//go:noinline
func readPage(r *request, index int) {
	fReadPage.Enter(fFetchRow)
	if r.dice>>(24+index)&7 == 0 {
		time.Sleep(time.Duration(2000+(r.dice>>40&4095)) * time.Microsecond)
	}
	fReadPage.Leave()
}

//go:noinline
func fetchRow(r *request, index int) row {
	fFetchRow.Enter(fQuery)
	readPage(r, index)
	key := dice(r.dice + uint64(index))
	one := row{key, fmt.Sprintf("item <%d>", key%100_000)}
	fFetchRow.Leave()
	return one
}

//go:noinline
func plan(r *request) int {
	fPlan.Enter(fQuery)
	rows := 2 + int(r.dice>>16&1)
	switch r.kind {
	case missing:
		rows = 0
	case report:
		rows = maxRows
	}
	fPlan.Leave()
	return rows
}

//go:noinline
func sortRows(rows []row) {
	fSortRows.Enter(fQuery)
	sort.Slice(rows, func(i, j int) bool { return rows[i].key < rows[j].key })
	fSortRows.Leave()
}

//go:noinline
func dbQuery(r *request) []row {
	fQuery.Enter(fHandle)
	rows := make([]row, plan(r))
	for i := range rows {
		rows[i] = fetchRow(r, i)
	}
	if len(rows) > 1 {
		sortRows(rows)
	}
	fQuery.Leave()
	return rows
}

//go:noinline
func escape(text string) string {
	fEscape.Enter(fRender)
	text = html.EscapeString(text)
	fEscape.Leave()
	return text
}

//go:noinline
func writeBody(r *request) {
	fWriteBody.Enter(fRender)
	if r.kind == report { // a slow client
		time.Sleep(6 * time.Millisecond)
	}
	fWriteBody.Leave()
}

//go:noinline
func render(r *request, rows []row) string {
	fRender.Enter(fHandle)
	var body strings.Builder
	for _, one := range rows {
		body.WriteString(escape(one.name))
	}
	writeBody(r)
	fRender.Leave()
	return body.String()
}

//go:noinline
func renderError(r *request, status int) string {
	fRenderError.Enter(fHandle)
	text := fmt.Sprint(r.line, status)
	fRenderError.Leave()
	return text
}

//go:noinline
func logLine(r *request, status int) string {
	fLogLine.Enter(fHandle)
	line := fmt.Sprintf("%d %s %q %d", r.number, r.user, r.line, status)
	fLogLine.Leave()
	return line
}

//go:noinline
func handleRequest(r *request) int {
	fHandle.Enter(gotruth.Root)
	status := 200
	parse(r)
	if !auth(r) {
		status = 403
		renderError(r, status)
	} else if rows := dbQuery(r); len(rows) == 0 {
		status = 404
		renderError(r, status)
	} else {
		render(r, rows)
	}
	logLine(r, status)
	fHandle.Leave()
	return status
}

func main() {
	requests := uint64(gotruth.Arg("--requests", 0))
	seed := uint64(gotruth.Arg("--seed", 1))
	pause := time.Duration(gotruth.Arg("--pause", 25_000)) * time.Microsecond
	summary := !gotruth.Has("--auto") && !gotruth.Has("--wait")
	if summary {
		gotruth.Auto()
	}
	gotruth.Begin()
	stop := gotruth.Endless()

	queue := make(chan uint64, 16)
	var served, refused, absent atomic.Uint64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for number := range queue {
				switch handleRequest(&request{number: number, dice: dice(seed*1_000_003 + number)}) {
				case 200:
					served.Add(1)
				case 403:
					refused.Add(1)
				default:
					absent.Add(1)
				}
			}
		})
	}
	tick := time.NewTicker(max(pause, time.Nanosecond))
	defer tick.Stop()
feed:
	for number := uint64(1); requests == 0 || number <= requests; number++ {
		queue <- number
		select {
		case <-stop:
			break feed
		case <-tick.C:
		}
	}
	close(queue)
	running.Wait()
	if summary {
		fmt.Printf("%d requests: %d served, %d denied, %d not found\n",
			served.Load()+refused.Load()+absent.Load(), served.Load(), refused.Load(), absent.Load())
		return
	}
	gotruth.Print(gotruth.Extra{})
	gotruth.Stay(stop)
}
