package runtime

import "unsafe"

// A function of the host's adapter, which is inside the component and may
// be called. While set, clocks answer what they answered last.
//
//go:wasmimport wasi_snapshot_preview1 adapter_monotonic_clock_set_paused
func setClockPaused(paused bool)

// nothing is where memory of no bytes is. An address that is none of Go's would
// stop the collector when it finds it.
var nothing uint64

//go:wasmexport cabi_realloc
func reallocate(old unsafe.Pointer, oldBytes, align, bytes uintptr) unsafe.Pointer {
	if old != nil || oldBytes != 0 {
		panic("the host wants to grow memory, which it does for no string of UTF-8")
	}
	if bytes == 0 {
		return unsafe.Pointer(&nothing)
	}
	setClockPaused(true)
	var memory unsafe.Pointer
	if bytes >= ownBytesMin {
		memory = allocate(bytes, align)
		kept = append(kept, memory)
	} else {
		memory = carve(bytes, align)
	}
	setClockPaused(false)
	return memory
}
