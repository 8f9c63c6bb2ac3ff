package targets

import (
	"debug/elf"
	"testing"
)

// symbolTable returns the symbols of an ELF file by name.
func symbolTable(t *testing.T, path string) map[string]elf.Symbol {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	list, err := file.Symbols()
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	symbols := make(map[string]elf.Symbol, len(list))
	for _, symbol := range list {
		symbols[symbol.Name] = symbol
	}
	return symbols
}

// codeBytes returns the first n bytes of a function.
func codeBytes(t *testing.T, path string, symbol elf.Symbol, n int) string {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if int(symbol.Section) >= len(file.Sections) || symbol.Section == elf.SHN_UNDEF {
		t.Fatalf("%s: no such function", path)
	}
	section := file.Sections[symbol.Section]
	code := make([]byte, n)
	if _, err := section.ReadAt(code, int64(symbol.Value-section.Addr)); err != nil {
		t.Fatalf("%s: %v", symbol.Name, err)
	}
	return string(code)
}
