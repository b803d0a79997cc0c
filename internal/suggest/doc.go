// Package suggest finds the word that was probably meant: for messages about commands, flags and fields of files that do not exist.
//
//	suggest.Nearest("machnes", []string{"machines", "store_dir"}) // "machines"
//
// It promises a guess or nothing, never a guess that shares nothing with what was typed (TestNearest). It is pure; the time is that of the product of
// the lengths, which it bounds.
package suggest
