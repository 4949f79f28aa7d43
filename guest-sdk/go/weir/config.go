package weir

import "fmt"

// Config returns a setting of the [config] table of handler.toml, and whether it is there.
func Config(name string) (string, bool) {
	return calls().Config(name)
}

// ConfigOr reads a setting, or returns fallback where there is none:
//
//	gap, err := weir.ConfigOr("gap", 30*time.Minute, time.ParseDuration)
//
// An error is one to retry: the event is not at fault, and may do better once
// somebody mends the file.
func ConfigOr[T any](name string, fallback T, parse func(string) (T, error)) (T, error) {
	text, there := Config(name)
	if !there {
		return fallback, nil
	}
	value, err := parse(text)
	if err != nil {
		return fallback, fmt.Errorf("[config] %s = %q: %w", name, text, err)
	}
	return value, nil
}
