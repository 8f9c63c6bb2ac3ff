package loader

import (
	"errors"
	"fmt"
)

// Capabilities that tracing has a use for: bits of capability.h.
const (
	capKill              = 5
	capSetgid            = 6
	capSetuid            = 7
	capSysPtrace         = 19
	capSysAdmin          = 21
	capSysNice           = 23
	capSysResource       = 24
	capPerfmon           = 38
	capBPF               = 39
	capCheckpointRestore = 40
)

// errNotHeld says that a capability is wanting.
var errNotHeld = errors.New("capability not held")

// has reports whether a set of capabilities has the bit.
func has(set uint64, bit int) bool { return set>>bit&1 != 0 }

// mayTrace reports whether this process has the capabilities that tracing takes.
func (h *host) mayTrace() bool {
	set, err := h.capabilities()
	return err == nil && len(missingIn(set)) == 0
}

// missingIn names the capabilities that tracing takes and that set lacks.
// CAP_SYS_ADMIN stands for both, as it did before Linux 5.8 (capabilities(7)).
func missingIn(set uint64) []string {
	if has(set, capSysAdmin) {
		return nil
	}
	var missing []string
	if !has(set, capBPF) {
		missing = append(missing, "CAP_BPF")
	}
	if !has(set, capPerfmon) {
		missing = append(missing, "CAP_PERFMON")
	}
	return missing
}

// capabilityTests look at what this process may do.
func capabilityTests() []featureTest {
	sudo := "run it with sudo"
	// held tests for a capability, or others that stand for it.
	held := func(bit int, others ...int) func(*host) (string, error) {
		return func(h *host) (string, error) {
			set, err := h.capabilities()
			switch {
			case err != nil:
				return "", err
			case has(set, bit):
				return "", nil
			}
			for _, o := range others {
				if has(set, o) {
					return "not held, " + capabilityNames[o] + " stands for it", nil
				}
			}
			return "not held", errNotHeld
		}
	}
	capability := func(bit int, use string, others ...int) featureTest {
		return featureTest{
			Feature: Feature{ID: capabilityIDs[bit], Group: GroupRights, Name: capabilityNames[bit], Use: use},
			fix:     sudo, test: held(bit, others...),
		}
	}
	bpf := capability(capBPF, "load BPF programs", capSysAdmin)
	perfmon := capability(capPerfmon, "attach them to other processes", capSysAdmin)
	bpf.Required, perfmon.Required = true, true
	resource := capability(capSysResource, "raise the limit on locked memory before Linux 5.11")
	resource.test = func(h *host) (string, error) {
		detail, err := held(capSysResource)(h)
		if v, _, versionErr := h.release(); versionErr == nil && v.AtLeast(5, 11) && errors.Is(err, errNotHeld) {
			return "not held, and not needed from Linux 5.11 on", nil
		}
		return detail, err
	}
	return []featureTest{
		bpf, perfmon,
		capability(capSysPtrace, "targets of other users"),
		capability(capCheckpointRestore, "programs that were deleted or replaced while they run", capSysAdmin),
		capability(capKill, "hold processes of other users at exec"),
		capability(capSetuid, "run a command as another user"),
		capability(capSetgid, "run a command as another user"),
		capability(capSysNice, "read events before the target fills the buffer"),
		resource,
	}
}

// capabilityNames are the names of capability.h.
var capabilityNames = map[int]string{
	capKill: "CAP_KILL", capSetgid: "CAP_SETGID", capSetuid: "CAP_SETUID", capSysPtrace: "CAP_SYS_PTRACE",
	capSysAdmin: "CAP_SYS_ADMIN", capSysNice: "CAP_SYS_NICE", capSysResource: "CAP_SYS_RESOURCE",
	capPerfmon: "CAP_PERFMON", capBPF: "CAP_BPF", capCheckpointRestore: "CAP_CHECKPOINT_RESTORE",
}

// capabilityIDs are their names as ids of features.
var capabilityIDs = map[int]string{
	capKill: "cap_kill", capSetgid: "cap_setgid", capSetuid: "cap_setuid", capSysPtrace: "cap_sys_ptrace",
	capSysAdmin: "cap_sys_admin", capSysNice: "cap_sys_nice", capSysResource: "cap_sys_resource",
	capPerfmon: "cap_perfmon", capBPF: "cap_bpf", capCheckpointRestore: "cap_checkpoint_restore",
}

// userNamespace reports whether this process is in a user namespace other than
// the initial one: all ids map to themselves in that one (user_namespaces(7)).
func userNamespace(h *host) bool {
	text, err := h.read("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var inside, outside, count uint64
	if _, err := fmt.Sscan(text, &inside, &outside, &count); err != nil {
		return false
	}
	return inside != 0 || outside != 0 || count != 1<<32-1
}
