// Package runtime is the memory that a host writes into: what a handler is
// called with, and the answers to what it asks.
//
// The host asks for it by cabi_realloc. Inside of that no function of the host may
// be called, and the component would trap if one was. So it does not enter
// Go's scheduler (a chunk is one allocation), and while the collector may run the
// clock that it measures itself with is stopped.
package runtime

import (
	"fmt"
	"runtime"
	"unsafe"
)

// chunkBytes is what is allocated at once: most events fit.
const chunkBytes = 4096

// ownBytesMin is from where an allocation gets memory of its own, so that what
// is kept of a chunk does not keep a large neighbour.
const ownBytesMin = 1024

var (
	// chunk is what is left of the last chunk. Chunks are never used again; the
	// collector frees one when nothing of it is kept.
	chunk []byte

	// kept holds what, beside the chunk, was allocated for the host since the event
	// began: pointers that the host wrote are nothing that the collector sees.
	kept = make([]unsafe.Pointer, 0, 64)
)

// Unpin lets go of what was allocated for the host. Generated code calls it when it has
// Go values of all that the host wrote.
func Unpin() {
	clear(kept)
	kept = kept[:0]
}

// Allocate returns memory that stays where it is until pinner is unpinned.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	pointer := allocate(size, align)
	pinner.Pin(pointer)
	return pointer
}

func allocate(size, align uintptr) unsafe.Pointer {
	if align > 8 {
		panic(fmt.Sprintf("memory for the host aligned to %d bytes; the component model has at most 8", align))
	}
	// Words, so that it is aligned to 8 bytes.
	return unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
}

// carve returns memory of a chunk.
func carve(size, align uintptr) unsafe.Pointer {
	start := padding(uintptr(unsafe.Pointer(unsafe.SliceData(chunk))), align)
	if start+size > uintptr(len(chunk)) {
		kept = append(kept, unsafe.Pointer(unsafe.SliceData(chunk)))
		chunk = unsafe.Slice((*byte)(allocate(chunkBytes, 8)), chunkBytes)
		start = 0
	}
	memory := unsafe.Pointer(unsafe.SliceData(chunk[start:]))
	chunk = chunk[start+size:]
	return memory
}

func padding(address, align uintptr) uintptr {
	return -address & (align - 1)
}
