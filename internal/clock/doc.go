// Package clock makes the one kind of time that quorate decides by: an [Instant], three readings of the same moment.
//
// A right (a term, an assignment) ends by whichever clock shows most: [Instant.Reached]. A wait before taking somebody's
// right is measured on the monotonic clock alone: [Instant.Waited]. They are two functions on purpose: one helper for
// both made the model violate L1 within seconds (design 4.1, field rule R4).
//
// The only place where quorate reads a clock to decide something is [Now], called by the shells. Machines are told the
// time. Go's monotonic clock stands still while a machine is suspended (golang/go#24595), hence the boot-time reading.
package clock
