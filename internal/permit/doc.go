// Package permit says which NATS permissions a process of quorate needs, and no more: the subjects it publishes to and subscribes to, by its role.
//
//	s := permit.Of(permit.Options{Namespace: "default", Role: permit.Member, Groups: []string{"workers"}})
//	fmt.Println(s.Publish, s.Subscribe, s.Responses)
//
// It promises that every feature works under what it gives, and that what it does not give is refused by the server: writes to another namespace or to
// another group's records, publications where the server republishes, anything but looking for an observer. docs/security.md names the tests, which are
// in package cli. The text is stable: the same options give the same subjects in the same order (TestOf).
//
// It does not promise what NATS permissions cannot keep apart (docs/security.md): a namespace's records can be read by whoever may read one of them, the
// members of a group can write each other's, and whoever may ask JetStream anything can have the answer stored over any record of the account.
//
// It is pure; nothing is started, nothing is asked.
package permit
