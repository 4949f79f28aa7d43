package shared

import (
	"weir.dev/guest/generated/weir_handler_shared"
	"weir.dev/guest/internal/host"
)

func init() { host.CurrentShared = component{} }

// component calls the host that this component runs on.
type component struct{}

func (component) Get(name string) ([]byte, bool) {
	return weir_handler_shared.Get(name).Get()
}

func (component) Set(name string, value []byte) {
	weir_handler_shared.Set(name, value)
}

func (component) Delete(name string) {
	weir_handler_shared.Delete(name)
}

func (component) TryLock(name string, ttlMS uint64) (uint64, bool) {
	return weir_handler_shared.TryLock(name, ttlMS).Get()
}

func (component) Lock(name string, ttlMS uint64) uint64 {
	return weir_handler_shared.Lock(name, ttlMS)
}

func (component) Unlock(name string) {
	weir_handler_shared.Unlock(name)
}
