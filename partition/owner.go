package partition

import (
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/quorate/quorate/internal/wire"
)

// The maps of keys to shares, as the settled record names them.
const (
	MapJump  = wire.MapJump  // without buckets: the index is jump(xxh64(key, seed 0), total)
	MapXXH64 = wire.MapXXH64 // the bucket is xxh64(key, seed 0) mod buckets
	MapFNV1a = wire.MapFNV1a // the bucket is FNV-1a of 32 bits of the key mod buckets: what the NATS server's {{partition(n,...)}} computes
)

// The hashes of [Config.Hash].
const (
	HashXXH64 = "xxh64"
	HashNATS  = "nats"
)

// Index is the index, of total, that a key belongs to under [MapJump]: pure, and the same in every process and language that
// follows docs/protocol.md. It returns -1 if total is not positive.
func Index(key string, total int) int {
	if total <= 0 {
		return -1
	}
	return jump(xxhash.Sum64String(key), total)
}

// BucketOf is the bucket, of so many, that a key belongs to by a hash ("": [HashXXH64]): pure, as [Index]. It returns -1 if there are
// no buckets, or there is no such hash.
func BucketOf(key string, buckets int, hash string) int {
	name, err := mapOf(hash)
	if err != nil || buckets <= 0 {
		return -1
	}
	return bucketBy(name, key, buckets)
}

func mapOf(hash string) (string, error) {
	switch hash {
	case "", HashXXH64:
		return MapXXH64, nil
	case HashNATS:
		return MapFNV1a, nil
	}
	return "", fmt.Errorf("hash %q: there are %q and %q", hash, HashXXH64, HashNATS)
}

// bucketBy is the bucket of a key by a known map.
func bucketBy(name, key string, buckets int) int {
	if name == MapFNV1a {
		return int(fnv1a(key) % uint32(buckets))
	}
	return int(xxhash.Sum64String(key) % uint64(buckets))
}

// known says whether this version can tell whose a key is.
func known(name string, buckets int) bool {
	switch name {
	case "", MapJump:
		return buckets == 0
	case MapXXH64, MapFNV1a:
		return buckets > 0
	}
	return false
}

// fnv1a is FNV-1a of 32 bits, without the allocation of hash/fnv.
func fnv1a(key string) uint32 {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return h
}

// jump is the jump consistent hash of Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm" (2014): when
// total grows by one, only one key of total+1 moves.
func jump(key uint64, total int) int {
	b, j := int64(-1), int64(0)
	for j < int64(total) {
		b = j
		key = key*2862933555777941757 + 1
		j = int64(float64(b+1) * (float64(int64(1)<<31) / float64((key>>33)+1)))
	}
	return int(b)
}
