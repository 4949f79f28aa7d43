package weir

// SubjectToken writes any text as one token of a subject: bytes outside
// A-Z a-z 0-9 _ - become %XX. A key that came from a payload may hold dots,
// spaces or wildcards; a subject made of it must not.
//
// Empty text stays empty, and no subject has an empty token.
func SubjectToken(text string) string {
	const digits = "0123456789ABCDEF"
	token := make([]byte, 0, len(text))
	for _, b := range []byte(text) {
		switch {
		case 'A' <= b && b <= 'Z', 'a' <= b && b <= 'z', '0' <= b && b <= '9', b == '_', b == '-':
			token = append(token, b)
		default:
			token = append(token, '%', digits[b>>4], digits[b&15])
		}
	}
	return string(token)
}
