package exporter

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const duckdb = "@duckdb/node-api@1.5.6-r.1"

// installDuckDB installs DuckDB for Node.js from the npm registry, once per
// clone.
func installDuckDB(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../.cache/duckdb")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@duckdb", "node-api")); err == nil {
		return dir
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here to run DuckDB with", tool)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", dir, duckdb)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("npm does not install DuckDB: %v: %s", err, out)
	}
	return dir
}

// TestParquetInDuckDB runs the queries of docs/export.md, and one that counts
// all calls.
func TestParquetInDuckDB(t *testing.T) {
	dir := installDuckDB(t)
	work := t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "calls.parquet"), export(t, FormatParquet, testSeed, testSteps, shopOptions()), 0o644); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/export.md")
	if err != nil {
		t.Fatal(err)
	}
	queries := []string{"SELECT count(*)::DOUBLE AS calls, sum(dur)::DOUBLE AS total, sum(self)::DOUBLE AS self, count(ret)::DOUBLE AS returned, typeof(any_value(time)) AS type FROM 'calls.parquet'"}
	for _, m := range regexp.MustCompile("(?s)```sql\n(.*?);?\n```").FindAllStringSubmatch(string(page), -1) {
		queries = append(queries, m[1])
	}
	if len(queries) != 4 {
		t.Fatalf("%d queries", len(queries))
	}
	text, _ := json.Marshal(queries)
	script := fmt.Sprintf(`
		const {DuckDBInstance} = require(%q);
		(async () => {
			const c = await (await DuckDBInstance.create(':memory:')).connect(), out = [];
			for (const q of %s) out.push((await c.runAndReadAll(q)).getRowObjectsJson());
			console.log(JSON.stringify(out));
		})().catch(e => { console.error(e); process.exit(1); });`, filepath.Join(dir, "node_modules", "@duckdb", "node-api"), text)
	cmd := exec.Command("node", "-e", script)
	cmd.Dir = work
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var results [][]map[string]any
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := expected(testSeed, testSteps)
	all := results[0][0]
	if all["calls"] != float64(want.calls) || all["total"] != float64(want.total) || all["self"] != float64(want.self) || all["type"] != "TIMESTAMP WITH TIME ZONE" {
		t.Errorf("DuckDB counts %v, want %+v", all, want)
	}
	for i, rows := range results[1:] {
		if len(rows) == 0 {
			t.Errorf("no rows of\n%s", queries[i+1])
		}
	}
}

// TestColumnsAreDocumented holds the schema against docs/export.md.
func TestColumnsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/export.md")
	if err != nil {
		t.Fatal(err)
	}
	_, page2, _ := strings.Cut(string(page), "\n## Parquet\n")
	table, _, _ := strings.Cut(page2, "\nWith DuckDB")
	row := reflect.TypeFor[CallRow]()
	documented := map[string]bool{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(cells[1], -1) {
				documented[m[1]] = true
			}
		}
	}
	for i := range row.NumField() {
		name, _, _ := strings.Cut(row.Field(i).Tag.Get("parquet"), ",")
		if !documented[name] {
			t.Errorf("docs/export.md does not describe the column %s", name)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/export.md describes the column %s, which there is not", name)
	}
}
