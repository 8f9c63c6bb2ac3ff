package symbolizer

// Call frame instructions (DW_CFA_*). The upper two bits hold the first three.
const (
	cfaAdvanceLoc = 0x40
	cfaOffset     = 0x80
	cfaRestore    = 0xc0

	cfaNop              = 0x00
	cfaAdvanceLoc1      = 0x02
	cfaAdvanceLoc2      = 0x03
	cfaAdvanceLoc4      = 0x04
	cfaOffsetExtended   = 0x05
	cfaRestoreExtended  = 0x06
	cfaUndefined        = 0x07
	cfaSameValue        = 0x08
	cfaRegister         = 0x09
	cfaRememberState    = 0x0a
	cfaRestoreState     = 0x0b
	cfaDefCFA           = 0x0c
	cfaDefCFARegister   = 0x0d
	cfaDefCFAOffset     = 0x0e
	cfaDefCFAExpression = 0x0f
	cfaExpression       = 0x10
	cfaOffsetExtendedSF = 0x11
	cfaDefCFASF         = 0x12
	cfaDefCFAOffsetSF   = 0x13
	cfaValOffset        = 0x14
	cfaValOffsetSF      = 0x15
	cfaValExpression    = 0x16
	cfaNegateRAState    = 0x2d
	cfaGNUArgsSize      = 0x2e

	cfaGNUNegativeOffset = 0x2f
)

// startsInside reports whether the code starts with a frame already built: its
// rules redefine the canonical frame address before the first instruction. That
// is so for the cold part of a function and for signal trampolines, not for
// what a call enters.
func (f *FDE) startsInside() bool {
	if f.CIE != nil && f.CIE.SignalFrame {
		return true
	}
	p := &ehParser{data: f.Instructions}
	c := p.cursor(0, len(f.Instructions))
	for c.err == nil && c.at < c.end {
		op := c.u8()
		switch op & 0xc0 {
		case cfaAdvanceLoc:
			return false
		case cfaOffset:
			c.uleb()
			continue
		case cfaRestore:
			continue
		}
		switch op {
		case cfaNop, cfaRememberState, cfaRestoreState, cfaNegateRAState:
		case cfaRestoreExtended, cfaUndefined, cfaSameValue, cfaGNUArgsSize:
			c.uleb()
		case cfaOffsetExtended, cfaRegister, cfaOffsetExtendedSF, cfaValOffset, cfaValOffsetSF:
			c.uleb()
			c.uleb()
		case cfaExpression, cfaValExpression:
			c.uleb()
			c.take(c.uleb())
		case cfaDefCFA, cfaDefCFARegister, cfaDefCFAOffset, cfaDefCFAExpression, cfaDefCFASF, cfaDefCFAOffsetSF:
			return true
		default: // an advance, or an instruction of the future
			return false
		}
	}
	return false
}
