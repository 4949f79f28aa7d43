package weirtest

import (
	"bytes"
	"fmt"
	"maps"
)

// WaitsError is what [Host.Deliver] returns where the handler called Lock of package shared
// for a lock that another key holds. On a real host the event is handled again once the
// lock is free.
type WaitsError struct {
	Lock string
}

func (e *WaitsError) Error() string {
	return fmt.Sprintf("waits for lock %q", e.Lock)
}

// SetShared writes a shared cell, as another handler would have.
func (h *Host) SetShared(name string, value []byte) {
	h.shared.cells[name] = append([]byte{}, value...)
}

// Shared returns a shared cell as the last successful invocation left it, and whether
// there is one.
func (h *Host) Shared(name string) ([]byte, bool) {
	value, there := h.shared.cells[name]
	return value, there
}

// LockHolder returns the key that holds a lock, and whether any does. Locks do not expire
// here; [Host.BreakLock] ends one.
func (h *Host) LockHolder(name string) (key string, held bool) {
	lock := h.shared.locks[name]
	return lock.holder, lock.held
}

// BreakLock takes a lock away from whoever holds it, as its expiry does.
func (h *Host) BreakLock(name string) {
	if lock, there := h.shared.locks[name]; there {
		h.shared.locks[name] = lock.free()
	}
}

// sharing is what keys share.
type sharing struct {
	cells map[string][]byte
	locks map[string]lock
}

// lock is the key that holds it, if any does, and the last token.
type lock struct {
	holder string
	held   bool
	token  uint64
}

func (l lock) free() lock {
	return lock{token: l.token}
}

func newSharing() sharing {
	return sharing{map[string][]byte{}, map[string]lock{}}
}

// forKey is what an event of a key sees of it, and may change.
func (s sharing) forKey(key string) *sharer {
	return &sharer{sharing: sharing{maps.Clone(s.cells), maps.Clone(s.locks)}, key: key}
}

// sharer is what the handler being called shares with others.
type sharer struct {
	sharing
	key string
	// waits is what ended the invocation.
	waits *WaitsError
}

// run calls the handler. It is held to have waited even where it recovered from that:
// on a real host there is nothing to recover.
func (s *sharer) run(handler func() error) (err error) {
	defer func() {
		if s.waits == nil {
			return
		}
		if ended := recover(); ended != nil && ended != any(s.waits) {
			panic(ended)
		}
		err = s.waits
	}()
	return handler()
}

func (s *sharer) Get(name string) ([]byte, bool) {
	value, there := s.cells[name]
	return bytes.Clone(value), there
}

func (s *sharer) Set(name string, value []byte) {
	s.cells[name] = append([]byte{}, value...)
}

func (s *sharer) Delete(name string) {
	delete(s.cells, name)
}

func (s *sharer) TryLock(name string, _ uint64) (uint64, bool) {
	last := s.locks[name]
	if last.held {
		if last.holder != s.key {
			return 0, false
		}
		return last.token, true
	}
	token := last.token + 1
	s.locks[name] = lock{s.key, true, token}
	return token, true
}

func (s *sharer) Lock(name string, ttlMS uint64) uint64 {
	token, held := s.TryLock(name, ttlMS)
	if !held {
		s.waits = &WaitsError{name}
		panic(s.waits)
	}
	return token
}

func (s *sharer) Unlock(name string) {
	if lock := s.locks[name]; lock.held && lock.holder == s.key {
		s.locks[name] = lock.free()
	}
}
