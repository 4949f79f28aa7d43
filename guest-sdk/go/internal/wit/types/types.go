// Package wit_types has what generated code makes of WIT's option, result and
// the absence of a value.
package wit_types

const (
	OptionNone = 0
	OptionSome = 1
	ResultOk   = 0
	ResultErr  = 1
)

// Option is a value or none.
type Option[T any] struct {
	tag   uint8
	value T
}

func None[T any]() Option[T] {
	return Option[T]{}
}

func Some[T any](value T) Option[T] {
	return Option[T]{OptionSome, value}
}

func (o Option[T]) Tag() uint8 {
	return o.tag
}

// Some returns the value. It panics where there is none.
func (o Option[T]) Some() T {
	if o.tag != OptionSome {
		panic("an option without a value was asked for it")
	}
	return o.value
}

// Get returns the value and whether there is one.
func (o Option[T]) Get() (T, bool) {
	return o.value, o.tag == OptionSome
}

// Result is a T, or a U in its place.
type Result[T, U any] struct {
	tag uint8
	ok  T
	err U
}

func Ok[T, U any](value T) Result[T, U] {
	return Result[T, U]{tag: ResultOk, ok: value}
}

func Err[T, U any](value U) Result[T, U] {
	return Result[T, U]{tag: ResultErr, err: value}
}

func (r Result[T, U]) Tag() uint8 {
	return r.tag
}

// Ok panics where the result is an error.
func (r Result[T, U]) Ok() T {
	if r.tag != ResultOk {
		panic("a result that is an error was asked for its value")
	}
	return r.ok
}

// Err panics where the result is none.
func (r Result[T, U]) Err() U {
	if r.tag != ResultErr {
		panic("a result that is no error was asked for it")
	}
	return r.err
}

// Unit is no value.
type Unit struct{}
