package symbolizer

import (
	"container/list"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// OpenCached is Open through a process-wide cache: files with the same build id,
// or for files without one the same device, inode, size and modification time,
// share one Binary. Close gives it back. Unused ones stay open until maxIdle of
// them are newer.
func OpenCached(path string) (*Binary, error) { return Options{}.OpenCached(path) }

// OpenCached is Open through the process-wide cache. Where a Binary is already
// there it is returned with the options that it was opened with.
func (o Options) OpenCached(path string) (*Binary, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	byInode := inodeKey(info)
	if b := cache.get(byInode); b != nil {
		f.Close()
		return b, nil
	}
	b, err := o.NewBinary(f, info.Size(), path)
	if err != nil {
		f.Close()
		return nil, err
	}
	b.closer = f
	return cache.add(b, byInode), nil
}

// maxIdle is how many Binaries stay open without a user. A process maps some
// dozens of modules.
const maxIdle = 64

// binaryCache holds the open Binaries under all their keys.
type binaryCache struct {
	mu    sync.Mutex
	byKey map[string]*cacheEntry
	idle  *list.List // of *cacheEntry without users, the longest unused in front
}

type cacheEntry struct {
	binary *Binary
	keys   []string
	place  *list.Element // in idle, nil while in use
}

var cache = &binaryCache{byKey: make(map[string]*cacheEntry), idle: list.New()}

func inodeKey(info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("inode:%d:%d:%d:%d", st.Dev, st.Ino, info.Size(), info.ModTime().UnixNano())
}

// buildIDKey includes the size: a stripped copy keeps the build id.
func buildIDKey(b *Binary) string {
	if b.BuildID == "" {
		return ""
	}
	return fmt.Sprintf("build-id:%s:%d:%s", b.BuildID, b.size, b.moduleName())
}

// get takes a Binary into use, nil if the key is unknown.
func (c *binaryCache) get(key string) *Binary {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[key]; e != nil && key != "" {
		return c.use(e)
	}
	return nil
}

func (c *binaryCache) use(e *cacheEntry) *Binary {
	if e.place != nil {
		c.idle.Remove(e.place)
		e.place = nil
	}
	e.binary.refs.Add(1)
	return e.binary
}

// share takes b into use once more. A Binary outside of the cache is opened again
// without its file, which is in memory (the vdso); nil if that fails.
func (b *Binary) share() *Binary {
	if !b.cached {
		again, _ := b.opts.NewBinary(b.r, b.size, b.Path)
		return again
	}
	cache.mu.Lock()
	defer cache.mu.Unlock()
	b.refs.Add(1) // more than zero: whoever calls has it in use
	return b
}

// add puts b into the cache and takes it into use. If another file with the same
// build id is there, b is closed and the other one is returned.
func (c *binaryCache) add(b *Binary, keys ...string) *Binary {
	if id := buildIDKey(b); id != "" {
		keys = append(keys, id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		if e := c.byKey[key]; e != nil {
			b.close()
			for _, k := range keys {
				c.attach(e, k)
			}
			return c.use(e)
		}
	}
	b.cached = true
	e := &cacheEntry{binary: b}
	for _, k := range keys {
		c.attach(e, k)
	}
	return c.use(e)
}

// maxKeys bounds the inodes remembered for one build id.
const maxKeys = 64

func (c *binaryCache) attach(e *cacheEntry, key string) {
	if _, taken := c.byKey[key]; taken || key == "" || len(e.keys) >= maxKeys {
		return
	}
	c.byKey[key] = e
	e.keys = append(e.keys, key)
}

// release gives up one use of b and closes what has been idle longest.
func (c *binaryCache) release(b *Binary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.refs.Add(-1) > 0 {
		return
	}
	for _, e := range c.byKey {
		if e.binary == b {
			e.place = c.idle.PushBack(e)
			break
		}
	}
	for c.idle.Len() > maxIdle {
		e := c.idle.Remove(c.idle.Front()).(*cacheEntry)
		for _, k := range e.keys {
			delete(c.byKey, k)
		}
		e.binary.close()
	}
}
