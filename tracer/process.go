package tracer

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// process is a traced process.
type process struct {
	pid     uint32
	goid    uint16           // offset of goid in runtime.g, 0 for other than Go programs
	main    fileID           // its program
	exe     fileID           // its program as stat(2) has it: on some file systems not the id in maps
	matcher *uprobes.Matcher // nil: its program cannot be traced
	usdt    *uprobes.USDTMatcher
	unwinds bool            // return probes would be in its way
	own     bool            // what is attached for everyone is not for it
	done    map[fileID]bool // modules looked at
	mods    []mapped        // what it has mapped, until that is attached to
}

// AddPIDs makes processes targets and attaches to them, with Options.Follow to
// their children too. Of several, those that have ended or cannot be traced are
// told to Options.Note and left out. Errors wrap symbolizer.ErrNoProcess when
// there is no such process (any more).
func (t *Tracer) AddPIDs(pids ...uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var missed error
	err := t.add(pids, func(pid uint32, err error) error {
		if len(pids) == 1 || !errors.Is(err, symbolizer.ErrNoProcess) && !errors.Is(err, ErrUntraceable) {
			return err
		}
		missed = err
		t.note("%v", err)
		return nil
	})
	if err == nil && len(t.processes) == 0 {
		return fmt.Errorf("none of %d processes can be traced, the last because: %w", len(pids), missed)
	}
	return err
}

// add makes processes targets, and their children if those are followed. All
// are known before the first is attached to: where probes go depends on who
// else runs the program. For a process that cannot be a target, failed decides
// whether to give up; children that cannot are left out.
func (t *Tracer) add(pids []uint32, failed func(pid uint32, err error) error) error {
	named := len(pids)
	give := func(pid uint32, err error) error {
		if slices.Contains(pids[:named], pid) {
			return failed(pid, err)
		}
		if !errors.Is(err, symbolizer.ErrNoProcess) && !errors.Is(err, ErrNoFunctions) {
			t.note("child process %d: %v", pid, err)
		}
		return nil
	}
	var added []*process
	for round := pids; len(round) > 0; round = t.children(added) {
		joined, err := t.join(round, give)
		if err != nil {
			return err
		}
		if added = append(added, joined...); len(joined) == 0 || !t.opt.Follow {
			break
		}
	}
	for _, p := range added {
		mods := p.mods
		p.mods = nil
		if err := endedMeanwhile(p.pid, t.addModules(p, mods)); err != nil {
			if err := give(p.pid, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// join makes processes known: to the kernel, which follows their forks from
// here on, and here. Nothing is attached yet.
func (t *Tracer) join(pids []uint32, failed func(pid uint32, err error) error) ([]*process, error) {
	var ready, joined []*process
	try := func(pid uint32, f func() error) (bool, error) {
		err := endedMeanwhile(pid, f())
		if err == nil {
			return true, nil
		}
		return false, failed(pid, err)
	}
	// Symbols are read while the programs are still being loaded.
	for _, pid := range pids {
		if t.processes[pid] != nil || slices.ContainsFunc(ready, func(p *process) bool { return p.pid == pid }) {
			continue
		}
		p := &process{pid: pid, done: make(map[fileID]bool)}
		ok, err := try(pid, func() error { return t.prepare(p) })
		if err != nil {
			return nil, err
		}
		if ok {
			ready = append(ready, p)
		}
	}
	if err := t.makeRoom(); err != nil {
		return nil, err
	}
	for _, p := range ready {
		ok, err := try(p.pid, func() error { return t.register(p) })
		if err != nil {
			return nil, err
		}
		if ok {
			joined = append(joined, p)
		}
	}
	return joined, nil
}

// prepare looks at a process and plans what to trace in it.
func (t *Tracer) prepare(p *process) error {
	var err error
	if p.mods, err = targetFiles(p.pid); err != nil {
		return err
	}
	if err := t.describe(p, p.mods); err != nil {
		return err
	}
	return t.planModules(p, p.mods)
}

// about is what the kernel must know.
func (p *process) about() loader.Process {
	return loader.Process{PID: p.pid, GoidOffset: p.goid, OwnProbes: p.own}
}

// register makes a process known.
func (t *Tracer) register(p *process) error {
	if err := t.loader.AddProcess(p.about()); err != nil {
		return err
	}
	if !alive(p.pid) { // if it is, its end will be reported
		t.loader.Forget(p.pid)
		return fmt.Errorf("pid %d: %w", p.pid, symbolizer.ErrNoProcess)
	}
	t.processes[p.pid] = p
	t.symbols.add(p.pid)
	return nil
}

// children are the processes that those added have started and that are no
// targets yet.
func (t *Tracer) children(added []*process) []uint32 {
	all, err := symbolizer.Processes()
	if err != nil {
		return nil
	}
	var out []uint32
	for _, pid := range all {
		if pid == os.Getpid() || t.processes[uint32(pid)] != nil {
			continue // sbxtrace is a child of the shell that is traced
		}
		parent, err := symbolizer.Parent(pid)
		if err == nil && slices.ContainsFunc(added, func(p *process) bool { return int(p.pid) == parent }) {
			out = append(out, uint32(pid))
		}
	}
	return out
}

// describe finds out what matters of the process as a whole.
func (t *Tracer) describe(p *process, mods []mapped) error {
	info := uprobes.ModuleInfo{}
	patterns := t.opt.USDT
	python, bare := false, t.opt.bare()
	for _, m := range mods {
		if m.Main {
			p.main, p.exe = m.id, exeID(int(p.pid))
		}
		bin, err := m.open()
		if err != nil {
			continue // said when its functions are asked for
		}
		p.unwinds = p.unwinds || unwinds(&m, bin)
		python = python || bare && (m.Main || strings.HasPrefix(filepath.Base(p.mainPath(mods)), "python")) && isPython(&m, bin)
		if m.Main {
			if bin.File().Class != elf.ELFCLASS64 {
				bin.Close()
				return fmt.Errorf("pid %d: %w: %s is a 32-bit program", p.pid, ErrUntraceable, m.Path)
			}
			info = uprobes.ModuleInfo{Name: m.Path, Go: bin.IsGo(), GoModule: bin.GoModule, GoPackage: bin.GoPackage}
			if bin.IsGo() {
				p.goid = goidOffset(bin.GoVersion)
			}
		}
		bin.Close()
	}
	matcher, err := t.opt.Selector.Compile()
	if err != nil {
		return err
	}
	if t.opt.Selector.Empty() {
		matcher = matcher.WithDefault(info)
	}
	p.matcher = matcher
	if python {
		// The program's own functions are those in Python.
		patterns = pythonFunctions
		t.python.Do(func() { t.note("the target's Python functions are traced; '*' traces those of the interpreter") })
	}
	if len(patterns) > 0 {
		if p.usdt, err = uprobes.CompileUSDT(patterns); err != nil {
			return err
		}
	}
	t.matchers = append(t.matchers, matcher)
	return nil
}

// mainPath is the path of the program.
func (p *process) mainPath(mods []mapped) string {
	for i := range mods {
		if mods[i].Main {
			return mods[i].Path
		}
	}
	return ""
}

// forked attaches to a new child what is attached to its parent alone.
func (t *Tracer) forked(parent, child uint32) error {
	p := t.processes[parent]
	if p == nil || t.processes[child] != nil {
		return nil
	}
	if p.matcher == nil {
		t.processes[child] = &process{pid: child}
		return nil
	}
	c := *p
	c.pid = child
	c.done = make(map[fileID]bool)
	t.processes[child] = &c
	t.symbols.add(child)
	mods, err := mappedFiles(child)
	if errors.Is(err, symbolizer.ErrNoProcess) {
		return nil // it has ended already
	}
	if err != nil {
		return err
	}
	return endedMeanwhile(child, t.addModules(&c, mods))
}

// latecomers makes targets of the processes that were started after the targets
// were looked up and before the kernel announced them.
func (t *Tracer) latecomers() {
	if t.opt.Joins == nil {
		return
	}
	pids, err := symbolizer.Processes()
	if err != nil {
		return // those to come are announced
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, pid := range pids {
		if err := t.candidate(uint32(pid)); err != nil && !errors.Is(err, symbolizer.ErrNoProcess) {
			t.note("pid %d: %v", pid, err)
		}
	}
}

// candidate makes a process a target if it is wanted.
func (t *Tracer) candidate(pid uint32) error {
	if t.processes[pid] != nil || int(pid) == os.Getpid() || !t.opt.Joins(int(pid)) {
		return nil
	}
	before := t.report.Functions
	if err := t.add([]uint32{pid}, func(_ uint32, err error) error { return err }); err != nil {
		return err
	}
	t.told.add(threadNames(pid)...)
	comm, err := symbolizer.Comm(int(pid))
	if err != nil {
		return err
	}
	t.noteFunctions(pid, before)
	t.note("pid %d (%s) is a target too", pid, comm)
	return nil
}

// noteFunctions says that there are more functions than before, found in a
// program that a process has begun to execute.
func (t *Tracer) noteFunctions(pid uint32, before int) {
	n := t.report.Functions - before
	if n == 0 {
		return
	}
	exe, err := symbolizer.Exe(int(pid))
	if err != nil {
		return // it has ended
	}
	t.note("%s in %s, which pid %d executes", count(n, "function"), filepath.Base(exe), pid)
}

// executed starts over with a process that runs another program now.
func (t *Tracer) executed(pid uint32) error {
	var err error
	switch p := t.processes[pid]; {
	case p == nil:
	case p.matcher != nil && p.exe != fileID{} && exeID(int(pid)) == p.exe && !t.overwrittenSince(p):
		// The same program again, or one that was looked at before the kernel
		// reported it: its probes are in.
		t.symbols.add(pid)
		err = t.mappedFile(pid)
	default:
		t.leave(pid)
		before := t.report.Functions
		err = t.add([]uint32{pid}, func(_ uint32, err error) error { return err })
		t.noteFunctions(pid, before)
		if t.processes[pid] == nil {
			// Still one of ours: the next program that it executes may be
			// one that can be traced.
			t.processes[pid] = &process{pid: pid}
		}
	}
	if t.opt.StopOnExec {
		err = errors.Join(err, t.loader.Resume(pid))
	}
	return err
}

// leave takes out what was attached to this one process: it has ended, or
// executed another program.
func (t *Tracer) leave(pid uint32) {
	delete(t.processes, pid)
	t.loader.RemoveProcess(pid)
	for _, m := range t.modules {
		delete(m.scopes, pid)
	}
}

// mappedFile looks at what a process has mapped meanwhile.
func (t *Tracer) mappedFile(pid uint32) error {
	p := t.processes[pid]
	if p == nil || p.matcher == nil {
		return nil
	}
	mods, err := mappedFiles(pid)
	if err != nil || exeID(int(pid)) != p.exe {
		return nil // it has ended or executes another program: the kernel reports that
	}
	before := t.report.Functions
	err = endedMeanwhile(pid, errors.Join(t.beware(p, mods), t.addModules(p, mods)))
	if n := t.report.Functions - before; n > 0 {
		t.note("%s in libraries loaded since", count(n, "function"))
	}
	return err
}
