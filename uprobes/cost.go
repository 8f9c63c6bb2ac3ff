package uprobes

// CostModel is what a hit of a probe with a short program costs the target, in
// nanoseconds of its time.
type CostModel struct {
	// Hit is the cost per hit by class of the probed instruction.
	Hit [SingleStepped + 1]uint32
	// Return is what a return probe costs on top of the hit at the entry.
	Return uint32
}

var (
	// VirtualCost was measured in a virtual machine with Linux 6.18: a trap is
	// cheap there, but single-stepping takes a second one that the hypervisor
	// handles.
	VirtualCost = CostModel{
		Hit:    [...]uint32{Nop5Optimized: 370, Emulated: 500, SingleStepped: 10_200},
		Return: 240,
	}
	// BareMetalCost is for machines without a hypervisor: single-stepping costs
	// about twice what an emulated instruction does.
	BareMetalCost = CostModel{
		Hit:    [...]uint32{Nop5Optimized: 330, Emulated: 500, SingleStepped: 1_000},
		Return: 240,
	}
)

// Estimate returns the expected cost of one hit of site in nanoseconds. For a
// RoleReturn site it is what the return adds to the entry.
func (m *CostModel) Estimate(site Site) uint32 {
	if site.Role == RoleReturn {
		return m.Return
	}
	if int(site.Class) >= len(m.Hit) {
		return m.Hit[SingleStepped]
	}
	return m.Hit[site.Class]
}

// EstimateCall returns the expected cost of one traced call in nanoseconds:
// the entry and one return.
func (m *CostModel) EstimateCall(p *Plan) uint32 {
	ns := m.Estimate(p.Entry)
	if len(p.Returns) > 0 {
		ns += m.Estimate(p.Returns[0])
	}
	return ns
}
