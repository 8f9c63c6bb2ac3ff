package view

import "testing"

func TestHasParameters(t *testing.T) {
	for name, want := range map[string]bool{
		"main": false, "f(int)": true, "A::f(int) const": true, "A::f() &&": true, "f(int) [clone .cold]": true,
		"net/http.(*conn).serve": false, "main.f[...]": false, "main.(*T).f-fm": false, "<T as Trait>::f": false,
	} {
		if got := hasParameters(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
