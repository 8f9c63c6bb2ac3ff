package targets

import (
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"testing"
)

// demoTree is what the demo targets do for requests 1 to n, by the names of the
// C program.
func demoTree(seed, n uint64) (tree []Edge) {
	edges := map[[2]string]uint64{}
	call := func(parent, child string, times uint64) {
		if times > 0 {
			edges[[2]string{parent, child}] += times
		}
	}
	for number := uint64(1); number <= n; number++ {
		dice := splitmix(seed*1_000_003 + number)
		call("", "handle_request", 1)
		call("handle_request", "parse", 1)
		call("parse", "read_line", 1)
		call("parse", "parse_header", 2+dice%3)
		call("handle_request", "auth", 1)
		call("auth", "find_session", 1)
		call("auth", "check_token", 1)
		call("handle_request", "log_line", 1)
		rows := 2 + dice>>16&1
		switch dice >> 8 & 15 {
		case 0: // denied
			call("handle_request", "render_error", 1)
			continue
		case 1: // not found
			rows = 0
		case 2: // a report
			rows = 8
		}
		call("handle_request", "db_query", 1)
		call("db_query", "plan", 1)
		if rows == 0 {
			call("handle_request", "render_error", 1)
			continue
		}
		call("db_query", "fetch_row", rows)
		call("fetch_row", "read_page", rows)
		call("db_query", "sort_rows", 1)
		call("handle_request", "render", 1)
		call("render", "escape", rows)
		call("render", "write_body", 1)
	}
	for edge, count := range edges {
		tree = append(tree, Edge{edge[0], edge[1], count})
	}
	return tree
}

func splitmix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// callsOf adds up the calls per function.
func callsOf(tree []Edge) counts {
	n := counts{}
	for _, edge := range tree {
		n[edge.Child] += edge.Count
	}
	return n
}

func TestDemo(t *testing.T) {
	tree := demoTree(7, 300)
	n := callsOf(tree)
	checkTruth(t, "demo", nativeVariants, Truth{Counts: n, Returns: n, Tree: tree},
		"--wait", "--requests", "300", "--seed", "7", "--pause", "0")
}

func TestGodemo(t *testing.T) {
	tree := demoTree(7, 300)
	for i := range tree {
		tree[i].Parent, tree[i].Child = goName(tree[i].Parent), goName(tree[i].Child)
	}
	n := callsOf(tree)
	checkTruth(t, "godemo", goVariants, Truth{Counts: n, Returns: n, Tree: tree},
		"--wait", "--requests", "300", "--seed", "7", "--pause", "0")
}

// goName turns snake_case into the Go program's name of the function.
func goName(name string) string {
	if name == "" {
		return ""
	}
	words := strings.Split(name, "_")
	for i, word := range words[1:] {
		words[i+1] = strings.ToUpper(word[:1]) + word[1:]
	}
	return "main." + strings.Join(words, "")
}

// TestDemoPlain runs the demos as a person does: no protocol, a summary at the end.
func TestDemoPlain(t *testing.T) {
	n := callsOf(demoTree(1, 100))
	for _, name := range []string{"demo", "godemo"} {
		t.Run(name, func(t *testing.T) {
			output, err := exec.Command(Build(t, name), "--requests", "100", "--pause", "0").Output()
			if err != nil {
				t.Fatal(err)
			}
			denied := n["auth"] - n["db_query"]
			want := fmt.Sprintf("100 requests: %d served, %d denied, %d not found\n", n["render"], denied, n["render_error"]-denied)
			if string(output) != want {
				t.Errorf("printed %q, want %q", output, want)
			}
		})
	}
}

// TestDemoSeeds checks that the seed matters and the same seed does the same.
func TestDemoSeeds(t *testing.T) {
	path := Build(t, "demo")
	run := func(seed string) counts {
		return Run(t, path, "--requests", "100", "--pause", "0", "--seed", seed).Counts
	}
	one, again, other := run("1"), run("1"), run("2")
	if !maps.Equal(one, again) {
		t.Errorf("one seed, two truths: %v and %v", one, again)
	}
	if maps.Equal(one, other) {
		t.Errorf("two seeds, one truth: %v", one)
	}
}
