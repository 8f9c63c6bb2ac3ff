// Golabels runs goroutines with labels for runtime/pprof until its standard
// input ends.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"
)

func main() {
	ready := make(chan bool)
	hold := make(chan bool)
	few := pprof.Labels("route", "/users/:id", "tenant", "acme", "empty", "")
	var pairs []string
	for i := 0; i < 20; i++ {
		pairs = append(pairs, fmt.Sprintf("key%02d", i), fmt.Sprintf("value %d", i))
	}
	for _, labels := range []pprof.LabelSet{few, pprof.Labels(pairs...)} {
		go pprof.Do(context.Background(), labels, func(context.Context) {
			ready <- true
			<-hold
		})
		<-ready
	}
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
}
