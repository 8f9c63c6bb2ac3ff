package testsum

import (
	"bufio"
	"io"
)

// lineReader splits a stream into lines of any length up to a bound; what a
// longer line has beyond it is thrown away.
type lineReader struct {
	r *bufio.Reader
}

const maxLine = 8 << 20

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{bufio.NewReaderSize(r, 64<<10)}
}

// next returns the next line without its end, or io.EOF.
func (l *lineReader) next() ([]byte, error) {
	var line []byte
	for {
		piece, err := l.r.ReadSlice('\n')
		if len(line) < maxLine {
			line = append(line, piece...)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(line) > 0, err == nil:
			for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
				line = line[:len(line)-1]
			}
			return line, nil
		default:
			return nil, err
		}
	}
}
