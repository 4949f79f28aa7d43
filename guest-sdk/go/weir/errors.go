package weir

import (
	"errors"
	"fmt"
)

// failure is an error with a decision.
type failure struct {
	err    error
	reject bool
}

func (f *failure) Error() string {
	return f.err.Error()
}

func (f *failure) Unwrap() error {
	return f.err
}

// Retry makes err one after which the host calls again, with its backoff; events of
// the same partition wait, and when the attempts are used up the event is
// dead-lettered. It is what any other error means too. Retry(nil) is nil.
func Retry(err error) error {
	return decide(err, false)
}

// Retryf is [Retry] of a new error.
func Retryf(format string, arguments ...any) error {
	return Retry(fmt.Errorf(format, arguments...))
}

// Reject makes err one that no attempt will do better with: the event is
// dead-lettered now. Reject(nil) is nil.
func Reject(err error) error {
	return decide(err, true)
}

// Rejectf is [Reject] of a new error.
func Rejectf(format string, arguments ...any) error {
	return Reject(fmt.Errorf(format, arguments...))
}

func decide(err error, reject bool) error {
	if err == nil {
		return nil
	}
	return &failure{err, reject}
}

// IsReject reports whether the host would dead-letter the event at once. The
// outermost decision counts.
func IsReject(err error) bool {
	var decided *failure
	return errors.As(err, &decided) && decided.reject
}
