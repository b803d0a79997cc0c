// Package wire holds everything that quorate puts on the wire: key and subject names, records, messages and their bounds.
//
// It is the Go form of docs/protocol.md, whose examples a test here decodes. Every record is JSON with "v":1; fields that
// are not known are ignored, another version is [ErrVersion] and never acted on. Durations are whole milliseconds in
// fields that end in _ms, tokens and generations are revisions of the bucket (below 2^53), incarnations are microseconds
// since 1970 at the start of the member, or one more than the incarnation before it.
package wire
