// Package embedded runs a NATS server inside this process: alone ([Start]), shared by all processes of one host that
// meet in a state directory ([OpenHost]), or as one of a cluster of three or five ([StartCluster]).
//
//	h, err := embedded.OpenHost(ctx, embedded.HostOptions{})  // the first process serves, the others connect to it
//	nc, err := h.Connect(ctx)                                 // hand nc to the layers above
//	defer h.Close(ctx)
//
// # The single server
//
// [Start] promises (field rules R33, R34):
//
//   - E1: data is in the given directory, never in a temporary one, and every acknowledged write is synced first
//     (unless NoSync is set). A synced write costs about 0.3 ms on a good disk. Tests: TestServerKeepsData.
//   - E2: one server per directory. A second one gets [ErrStoreInUse] with the process id of the first. The server itself
//     does not check this: two of them on one directory start without an error and destroy it. Tests: TestStoreInUse.
//   - E3: it listens on loopback only, unless a Host is given (S1), and handles no signals: those are the process's own.
//   - E4: when Start has returned, JetStream is enabled and clients can connect; when Close has returned nil, every
//     goroutine and file of the server is gone. Tests: TestStartStop.
//   - E5: a directory that cannot be used is one line of error that says what to do. Tests: TestBadDirectory.
//
// # One host
//
// The state directory (mode 0700) holds host.lock (flock; held by the process that serves), host.json (who serves, at
// which URL, under which random server name), token (the random secret of that server, mode 0600), store (the name of the
// store) and data/NAME (the store). [OpenHost] promises (design section 5):
//
//   - H1: at most one process serves. The lock is taken before the server starts and released after it has stopped;
//     when a process is killed the kernel releases it. A stopped (SIGSTOP) process keeps it: all wait, safely.
//     Tests: TestTakeOver, TestStoppedServer, TestLockOutlivesServer.
//   - H2: when the serving process ends, however, one of the rest takes the lock and serves on the same data, and all
//     reconnect by themselves: no port is fixed, each dial reads host.json again. Tests: TestTakeOver, TestGracefulClose.
//   - H3: the serving process looks each second whether host.lock, and the lock in the store, still are the files it
//     locked and whether JetStream is still enabled, and stops its server if not. For up to that second after the
//     directory was replaced two servers can run, on different data: the store has a random name so that the old
//     server cannot write into the new one's files. Tests: TestDirectoryReplaced, TestLockFileRemoved.
//   - H4: a dialer that meets a server of another name hangs up before it says anything, and does not dial at all when
//     nobody holds the lock; every server has a token of its own. So a foreign process on a port that a dead server
//     had learns nothing it could use. Tests: TestWrongServer, TestTokenNeeded.
//   - H5: with ClientOnly and nobody serving the answer is [ErrNoServer], at once. Tests: TestClientOnly.
//
// Not promised: protection from processes of the same user, or from root; one host across a network file system (flock
// there is often local, or missing); anything on systems without flock, where every call fails with one clear error.
// If somebody removes the state directory, the processes that use it make it anew, empty; rights held in the lost data
// can overlap for one lease (the exception to L1 and L2).
//
// # Clusters
//
// [ReadCluster] reads the JSON file that all machines share, [StartCluster] starts this machine's server of it;
// [ReadNATSFile] and [StartNATSFile] do so for an ordinary configuration file of the NATS server. They promise, beside E1 to E5:
//
//   - K1: all that is wrong with the file is told, each mistake with its line and field, and what would coordinate badly
//     is a mistake: two servers, no store. Tests: TestClusterFileMistakes, TestLocal, TestNATSFile, FuzzClusterFile.
//   - K2: [Server.Ready] is nil only when the server has caught up, the bucket has a leader, and a write went through
//     (R34). Tests: TestClusterKeepsData, TestStartNATSFile.
//   - K3: [Server.Close] hands over to others what the server leads, and waits until they lead it, at most 10 s (R35). So a
//     rolling restart that waits for Ready loses no term of 15 s. Tests: TestHandOver, TestRollingRestart.
//   - K4: data lies below the machine's name and survives a restart of all servers at once (accounts are configured as
//     text for the server's own parser, R33). Tests: TestClusterKeepsData.
//   - K5: no server comes into the cluster without its secret, if there is one; the system account is for its user alone;
//     secrets are in no log and no print. Tests: TestForeignRoute, TestClusterSecret, TestSystemUser, TestSecretsAreNotPrinted.
//
// Not promised: anything while a majority of the servers is away.
//
// # Concurrency and timing
//
// All methods may be called from any goroutine, Close any number of times. Starts and stops of servers in one process
// are serialised (starting and stopping at once made the server panic, field rules section 4). Every goroutine has
// ended when Close has returned nil.
//
// A process that lost its connection tries for the lock at once and then every 5 to 15 ms, and dials every 10 to 50 ms; one
// that has no connection looks every 400 to 600 ms. A take-over after a kill takes some 30 to 60 ms, a cold
// start to connected about 10 (measured on 2 cores, process start included).
package embedded
