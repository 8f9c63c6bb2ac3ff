package targets

import (
	"debug/elf"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestForker(t *testing.T) {
	const c = 6 // children
	n := counts{
		"spawn_child": c,
		"child_work":  2 * c,
		"child_leaf":  c*(c+1)/2 + 2*c + c, // i+1 per child, 2 per grandchild, 1 per thread
		"child_ends":  c,
		"fork_outer":  c, "fork_inner": c, "after_fork": c,
		"run_exec": c, "before_exec": c,
		"exec_work": 2 * c, "exec_leaf": 6 * c,
		"replace_outer": c, "replace_inner": c,
		"thread_main": c, "thread_inner": c, "thread_ends": c,
	}
	returns := counts{}
	for name, calls := range n {
		returns[name] = calls
	}
	for _, name := range []string{"child_ends", "replace_outer", "replace_inner", "thread_main", "thread_inner", "thread_ends"} {
		delete(returns, name)
	}
	checkTruth(t, "forker", nativeVariants, Truth{
		Counts: n, Returns: returns,
		MaxDepth: counts{
			"spawn_child": 1, "child_work": 2, "child_leaf": 3, "child_ends": 2,
			"fork_outer": 1, "fork_inner": 2, "after_fork": 1,
			"run_exec": 1, "before_exec": 2, "exec_work": 1, "exec_leaf": 2,
			"replace_outer": 1, "replace_inner": 2,
			"thread_main": 1, "thread_inner": 2, "thread_ends": 3,
		},
	}, "--children", "6")
}

func TestTailcalls(t *testing.T) {
	const r, b = 40, 8 // rounds, bounces
	checkTruth(t, "tailcalls", nativeVariants, Truth{
		Counts: counts{
			"chain": r, "tail_first": r, "tail_second": r, "tail_third": 2 * r,
			"bounce": r, "ping": r * (b/2 + 1), "pong": r * b / 2,
			"pointer": r, "tail_pointer": r, "to_even": r / 2, "to_odd": r / 2,
			"choose": r, "tail_maybe": r, "after": r, "tail_after_work": r,
			// chain 1, tail_third 2 twice, choose every other time, after 2
			"plain_leaf": r + 4*r + r/2 + 2*r,
		},
		Tree: []Edge{
			{"", "chain", r}, {"chain", "tail_first", r}, {"tail_first", "tail_second", r},
			{"tail_second", "tail_third", r}, {"chain", "plain_leaf", r}, {"tail_third", "plain_leaf", 4 * r},
			{"", "bounce", r}, {"bounce", "ping", r}, {"ping", "pong", r * b / 2}, {"pong", "ping", r * b / 2},
			{"", "pointer", r}, {"pointer", "tail_pointer", r},
			{"tail_pointer", "to_even", r / 2}, {"tail_pointer", "to_odd", r / 2},
			{"", "choose", r}, {"choose", "tail_maybe", r}, {"tail_maybe", "plain_leaf", r / 2},
			{"", "after", r}, {"after", "tail_after_work", r},
			{"tail_after_work", "plain_leaf", 2 * r}, {"tail_after_work", "tail_third", r},
		},
	}, "--rounds", "40", "--bounces", "8")
}

// TestTailcallsAreJumps disassembles the program: the truth about tail calls is
// worth nothing if the compiler made ordinary calls.
func TestTailcallsAreJumps(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("objdump not found")
	}
	jumps := map[string]string{ // function → where it must jump, "*" for through a register or memory
		"tail_first": "tail_second", "tail_second": "tail_third", "tail_after_work": "tail_third",
		"ping": "pong", "pong": "ping", "tail_maybe": "plain_leaf", "tail_pointer": "*",
	}
	for _, compiler := range []string{"gcc", "clang"} {
		t.Run(compiler, func(t *testing.T) {
			var options []Option
			if compiler == "clang" {
				options = append(options, Clang())
			}
			output, err := exec.Command(objdump, "-d", "--no-show-raw-insn", Build(t, "tailcalls", options...)).Output()
			if err != nil {
				t.Fatal(err)
			}
			bodies := map[string]string{}
			for _, block := range strings.Split(string(output), "\n\n") {
				head, body, found := strings.Cut(block, ">:\n")
				if _, name, ok := strings.Cut(head, "<"); found && ok {
					bodies[name] = body
				}
			}
			for from, to := range jumps {
				jumped := false
				for _, line := range strings.Split(bodies[from], "\n") {
					fields := strings.Fields(line)
					if len(fields) < 3 {
						continue
					}
					op, operand := fields[1], strings.Join(fields[2:], " ")
					if strings.HasPrefix(op, "call") && strings.Contains(operand, "<"+to+">") {
						t.Errorf("%s calls %s", from, to)
					}
					if op[0] == 'j' && (strings.Contains(operand, "<"+to+">") || to == "*" && strings.HasPrefix(operand, "*")) {
						jumped = true
					}
				}
				if !jumped {
					t.Errorf("%s has no jump to %s:\n%s", from, to, bodies[from])
				}
			}
		})
	}
}

func TestSignals(t *testing.T) {
	const r = 20
	for label, options := range nativeVariants {
		t.Run(label, func(t *testing.T) {
			p := Start(t, Build(t, "signals", options...), "--rounds", "20", "--ticks", "20")
			p.Ready()
			p.Go()
			got := p.Truth()
			if err := p.Quit(); err != nil {
				t.Fatal(err)
			}
			ticks, alt, spins := got.Counts["on_tick"], got.Counts["on_alt_tick"], got.Counts["spin_outer"]
			if ticks < 20 || alt < 5 || spins == 0 {
				t.Errorf("too little happened: %v", got.Counts)
			}
			want := Truth{
				Counts: counts{
					"raise_outer": r, "raise_inner": 3 * r,
					"on_usr1": r, "on_usr2": 2 * r, "on_both": r,
					// usr1 2, usr2 1 twice, both 2, raise_inner 3, jump_outer 1, on_jump 1
					"handler_leaf": 11 * r,
					"jump_outer":   r, "jump_inner": r, "on_jump": r,
					"spin_outer": spins, "spin_leaf": 10 * spins,
					"on_tick": ticks, "on_tick_leaf": 2 * ticks, "on_alt_tick": alt, "on_alt_leaf": alt,
				},
				Tree: []Edge{
					{"", "raise_outer", r}, {"raise_outer", "raise_inner", 3 * r},
					{"raise_inner", "on_usr1", r}, {"raise_inner", "on_usr2", r}, {"raise_inner", "on_both", r},
					{"raise_inner", "handler_leaf", 3 * r}, {"on_usr1", "handler_leaf", 2 * r},
					{"on_usr2", "handler_leaf", 2 * r}, {"on_both", "handler_leaf", 2 * r}, {"on_both", "on_usr2", r},
					{"", "jump_outer", r}, {"jump_outer", "jump_inner", r}, {"jump_inner", "on_jump", r},
					{"on_jump", "handler_leaf", r}, {"jump_outer", "handler_leaf", r},
					{"", "spin_outer", spins}, {"spin_outer", "spin_leaf", 10 * spins},
					{"on_tick", "on_tick_leaf", 2 * ticks}, {"on_alt_tick", "on_alt_leaf", alt},
				},
			}
			equalTruth(t, got, want)
			if open := got.Unfinished(); len(open) != 2 || open["jump_inner"] != r || open["on_jump"] != r {
				t.Errorf("unfinished calls %v", open)
			}
		})
	}
}

func TestUcontext(t *testing.T) {
	const coroutines, steps = 8, 30
	n := counts{
		"schedule": 1, "resume_one": coroutines * (steps + 1), "co_body": coroutines,
		"co_step": coroutines * steps, "co_yield": coroutines * steps, "co_leaf": 2 * coroutines * steps,
	}
	checkTruth(t, "ucontext", nativeVariants, Truth{
		Counts: n, Returns: n,
		MaxDepth: counts{"schedule": 1, "resume_one": 2, "co_body": 1, "co_step": 2, "co_yield": 3, "co_leaf": 3},
		Tree: []Edge{
			{"", "schedule", 1}, {"schedule", "resume_one", n["resume_one"]}, {"", "co_body", coroutines},
			{"co_body", "co_step", n["co_step"]}, {"co_step", "co_yield", n["co_yield"]}, {"co_step", "co_leaf", n["co_leaf"]},
		},
	}, "--coroutines", "8", "--steps", "30")
}

func TestDlopen(t *testing.T) {
	const loads, others = 5, 3
	n := counts{
		"host_round": loads + others,
		"plug_run":   10 * loads, "plug_helper": 20 * loads,
		"other_run": 5 * others, "other_helper": 5 * others,
		"host_callback": 10*loads + 2*5*others,
	}
	checkTruth(t, "dlopen", nativeVariants, Truth{Counts: n, Returns: n}, "--rounds", "5")
}

func TestDlopenStep(t *testing.T) {
	p := Start(t, Build(t, "dlopen"), "--rounds", "2", "--step")
	p.Ready()
	p.Go()
	for _, file := range []string{"libplug.so", "libother.so", "libplug.so"} {
		if loaded := p.Line("LOADED "); loaded != file {
			t.Errorf("loaded %s, want %s", loaded, file)
		}
		p.Go()
	}
	if truth := p.Truth(); truth.Counts["plug_run"] != 20 {
		t.Errorf("counts %v", truth.Counts)
	}
}

func TestLibcaller(t *testing.T) {
	const r = 25
	n := counts{
		"app_run": r, "app_step": r, "app_compare": 4 * r,
		"lib_work": r, "lib_hidden": 2 * r, "lib_visit": r, "lib_leaf": r + r + 4*r,
	}
	checkTruth(t, "libcaller", nativeVariants, Truth{Counts: n, Returns: n}, "--rounds", "25")
}

func TestIfunc(t *testing.T) {
	const r = 25
	n := counts{"use": r, "dispatch_plain": r, "dispatch_fast": r, "aliased": 3 * r}
	checkTruth(t, "ifunc", nativeVariants, Truth{Counts: n, Returns: n}, "--rounds", "25")

	symbols := symbolTable(t, Build(t, "ifunc"))
	if kind := elf.ST_TYPE(symbols["dispatch"].Info); kind != elf.STT_GNU_IFUNC {
		t.Errorf("dispatch is a symbol of type %v", kind)
	}
	for _, alias := range []string{"aliased_strong", "aliased_weak"} {
		if symbols[alias].Value != symbols["aliased"].Value {
			t.Errorf("%s at %#x, aliased at %#x", alias, symbols[alias].Value, symbols["aliased"].Value)
		}
	}
}

func TestPrologues(t *testing.T) {
	const r = 40 // a multiple of 4
	n := counts{
		"push_first": 2 * r, "fallen_into": 2 * r, // jmp_only goes to one, fall_into to the other
		"cold_path": 2 * r, "c_step": r/4 + 2*r/4 + 3*r/4,
	}
	for _, name := range strings.Fields(`push_extended endbr_push endbr_only mov_leaf sub_first lea_first xor_first
		cmp_branch nop1_first nop5_first nop9_first jmp_first call_first enter_first inc_first clobber_first
		clobber_push loop_to_push loop_to_start two_rets rep_ret ret_imm fall_into no_size prologue_jcc moves_sp
		ret_only jmp_only endbr_ret c_plain c_patchable c_switch c_returns c_cold c_cold_taken c_large_frame
		c_many_args c_struct c_vararg c_static c_realigned`) {
		n[name] = r
	}
	checkTruth(t, "prologues", nativeVariants, Truth{Counts: n}, "--rounds", fmt.Sprint(r))

	truth := Run(t, Build(t, "prologues"), "--rounds", fmt.Sprint(r))
	plusOne := []string{"push_extended", "endbr_push", "mov_leaf", "sub_first", "clobber_push", "moves_sp", "c_plain", "c_static"}
	for _, name := range plusOne {
		if truth.Values["arg0 "+name] != r*(r-1)/2 || truth.Values["ret "+name] != r*(r+1)/2 {
			t.Errorf("%s: sum of arguments %d, of results %d", name, truth.Values["arg0 "+name], truth.Values["ret "+name])
		}
	}
}

func TestVectors(t *testing.T) {
	const r = 20
	for label, options := range nativeVariants {
		t.Run(label, func(t *testing.T) {
			truth := Run(t, Build(t, "vectors", options...), "--rounds", fmt.Sprint(r))
			// How many functions there are to call is the processor's matter.
			if n := truth.Values["kinds"] + 1; truth.Values["failures"] != 0 || int64(len(truth.Counts)) != n || n < 10 && n != 1 {
				t.Errorf("%d failures, counts %v, values %v", truth.Values["failures"], truth.Counts, truth.Values)
			}
			for name, calls := range truth.Counts {
				if calls != r {
					t.Errorf("%s: %d calls", name, calls)
				}
			}
		})
	}
}

// TestProloguesBytes checks that compilers made the beginnings that the program
// is for.
func TestProloguesBytes(t *testing.T) {
	path := Build(t, "prologues")
	symbols := symbolTable(t, path)
	for name, want := range map[string]string{
		"push_first": "\x55", "push_extended": "\x41\x57", "endbr_push": "\xf3\x0f\x1e\xfa\x55",
		"nop5_first": "\x0f\x1f\x44\x00\x00", "mov_leaf": "\x48\x89\xf8", "sub_first": "\x48\x83\xec",
		"inc_first": "\x48\xff\x05", "ret_only": "\xc3", "jmp_only": "\xe9", "endbr_ret": "\xf3\x0f\x1e\xfa\xc3",
		"c_plain": "\xf3\x0f\x1e\xfa", "c_patchable": "\xf3\x0f\x1e\xfa\x90\x90\x90\x90\x90",
	} {
		if got := codeBytes(t, path, symbols[name], len(want)); got != want {
			t.Errorf("%s begins with % x, want % x", name, got, want)
		}
	}
	if symbols["no_size"].Size != 0 {
		t.Errorf("no_size has %d bytes", symbols["no_size"].Size)
	}
	if _, found := symbols["c_cold_taken.cold"]; !found {
		t.Error("c_cold_taken has no cold part")
	}
	if end := symbols["ret_only"].Value + symbols["ret_only"].Size; end != symbols["jmp_only"].Value {
		t.Errorf("ret_only ends at %#x, jmp_only begins at %#x", end, symbols["jmp_only"].Value)
	}
}

func TestBusy(t *testing.T) {
	const rounds, threads, values = 50, 2, 24
	for label, options := range nativeVariants {
		t.Run(label, func(t *testing.T) {
			got := Run(t, Build(t, "busy", options...), "--rounds", "50", "--threads", "2")
			const handled = rounds * threads
			want := counts{
				"handle": handled, "make_text": handled, "parse": handled, "checksum": 2 * handled,
				"put_number": values * handled, "table_add": values * handled, "table_find": values * handled,
				"mix": values * handled, "rotate": values * handled, "transform": handled,
				// one is_digit for each character, one next_char more for the end
				"is_digit": got.Counts["next_char"] - handled,
			}
			for name, calls := range want {
				if got.Counts[name] != calls {
					t.Errorf("%s: %d calls, want %d", name, got.Counts[name], calls)
				}
			}
			if got.Counts["less"] < got.Counts["swap_values"] || got.Counts["probe_slot"] < got.Counts["table_find"] {
				t.Errorf("counts %v", got.Counts)
			}
			if got.Values["failures"] != 0 || got.Values["elapsed_ns"] <= 0 {
				t.Errorf("values %v", got.Values)
			}
		})
	}
}

func TestCrash(t *testing.T) {
	for mode, sig := range map[string]syscall.Signal{"--abort": syscall.SIGABRT, "--segv": syscall.SIGSEGV, "--trap": syscall.SIGTRAP} {
		for label, options := range nativeVariants {
			t.Run(mode[2:]+"/"+label, func(t *testing.T) {
				p := Start(t, Build(t, "crash", options...), mode)
				p.Ready()
				p.Go()
				equalTruth(t, p.Truth(), Truth{
					Counts:   counts{"crash_outer": 1, "crash_middle": 1, "crash_inner": 1, "before": 3},
					Returns:  counts{"before": 3},
					MaxDepth: counts{"crash_outer": 1, "crash_middle": 2, "crash_inner": 3, "before": 3},
				})
				var exit *exec.ExitError
				if err := p.Quit(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != sig {
					t.Errorf("ended with %v, want %v", err, sig)
				}
			})
		}
	}
}

func TestExits(t *testing.T) {
	for _, mode := range []string{"--exit", "--thread", "--now"} {
		for label, options := range nativeVariants {
			t.Run(mode[2:]+"/"+label, func(t *testing.T) {
				p := Start(t, Build(t, "exits", options...), mode)
				p.Ready()
				p.Go()
				want := Truth{
					Counts:  counts{"exit_outer": 1, "exit_middle": 1, "exit_inner": 1, "before": 2, "on_exit_work": 1, "on_exit_leaf": 2},
					Returns: counts{"before": 2, "on_exit_work": 1, "on_exit_leaf": 2},
				}
				if mode == "--now" {
					want.Counts = counts{"exit_outer": 1, "exit_middle": 1, "exit_inner": 1, "before": 2}
					want.Returns = counts{"before": 2}
				}
				equalTruth(t, p.Truth(), want)
				var exit *exec.ExitError
				if err := p.Quit(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
					t.Errorf("ended with %v, want status 7", err)
				}
			})
		}
	}
}

func TestSlow(t *testing.T) {
	const r = 3
	n := counts{"slow_outer": r, "slow_middle": 2 * r, "slow_leaf": 2 * r, "quick": 2 * r}
	checkTruth(t, "slow", nativeVariants, Truth{Counts: n, Returns: n}, "--rounds", "3", "--unit", "100")

	truth := Run(t, Build(t, "slow"), "--rounds", "3", "--unit", "100")
	const unit = 100_000
	want := counts{"slow_outer": r * 18 * unit, "slow_middle": r * 16 * unit, "slow_leaf": r * 10 * unit}
	if differences := compare("ns", want, truth.SleptNS); differences != nil {
		t.Error(differences)
	}
}
