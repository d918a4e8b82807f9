// gomemcache: text commands from Go, a pool of connections, and as many goroutines as there are keys.
// Takes the server's port and the version to print.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

var (
	count int
	lock  sync.Mutex
)

// same counts one check: got must equal want.
func same(got, want interface{}, what string) {
	lock.Lock()
	defer lock.Unlock()
	count++
	if !reflect.DeepEqual(got, want) {
		panic(fmt.Sprintf("%s: got %.200v, want %.200v", what, got, want))
	}
}

// says counts one check: err must have the word in its text.
func says(err error, word, what string) {
	same(err != nil && strings.Contains(err.Error(), word), true, fmt.Sprintf("%s: %v", what, err))
}

func noise(size int) []byte {
	bytes := make([]byte, size)
	rand.New(rand.NewSource(900)).Read(bytes)
	return bytes
}

func main() {
	mc := memcache.New("127.0.0.1:" + os.Args[1])
	mc.Timeout = 10 * time.Second
	text := func(key string) string {
		item, err := mc.Get(key)
		if errors.Is(err, memcache.ErrCacheMiss) {
			return "<miss>"
		}
		same(err, nil, key)
		return string(item.Value)
	}
	set := func(key, value string) error {
		return mc.Set(&memcache.Item{Key: key, Value: []byte(value)})
	}

	// Storing and reading many, at once.
	var all sync.WaitGroup
	var keys []string
	for i := 0; i < 100; i++ {
		key := fmt.Sprintf("many:%d", i)
		keys = append(keys, key)
		all.Add(1)
		go func() {
			defer all.Done()
			same(mc.Set(&memcache.Item{Key: key, Value: []byte("of " + key), Flags: 7}), nil, key)
			item, err := mc.Get(key)
			same(err, nil, key)
			same(string(item.Value), "of "+key, key)
			same(item.Flags, uint32(7), key)
		}()
	}
	all.Wait()
	got, err := mc.GetMulti(append(keys, "absent"))
	same(err, nil, "GetMulti")
	same(len(got), len(keys), "GetMulti")
	for _, key := range keys {
		same(string(got[key].Value), "of "+key, key)
		same(mc.Delete(key), nil, key)
		same(mc.Delete(key), memcache.ErrCacheMiss, key)
	}
	same(text("absent"), "<miss>", "a miss")

	// add, replace.
	add := &memcache.Item{Key: "mode", Value: []byte("a")}
	same(mc.Add(add), nil, "add")
	same(mc.Add(add), memcache.ErrNotStored, "add again")
	same(mc.Replace(&memcache.Item{Key: "mode", Value: []byte("b")}), nil, "replace")
	same(mc.Replace(&memcache.Item{Key: "absent", Value: []byte("b")}), memcache.ErrNotStored, "replace")
	same(text("mode"), "b", "mode")

	// cas.
	same(set("cas", "one"), nil, "set")
	first, err := mc.Get("cas")
	same(err, nil, "get")
	second, err := mc.Get("cas")
	same(err, nil, "get")
	first.Value, second.Value = []byte("two"), []byte("three")
	same(mc.CompareAndSwap(first), nil, "cas")
	same(mc.CompareAndSwap(second), memcache.ErrCASConflict, "a unique is good for one store")
	same(text("cas"), "two", "cas")
	same(mc.Delete("cas"), nil, "delete")
	same(mc.CompareAndSwap(second), memcache.ErrCacheMiss, "cas of nothing")

	// incr, decr.
	counted := func(n uint64, err error) uint64 {
		same(err, nil, "counting")
		return n
	}
	same(set("n", "10"), nil, "set")
	same(counted(mc.Increment("n", 5)), uint64(15), "incr")
	same(counted(mc.Decrement("n", 6)), uint64(9), "decr")
	same(counted(mc.Decrement("n", 100)), uint64(0), "decr stops at 0")
	same(set("n", "18446744073709551615"), nil, "set")
	same(counted(mc.Increment("n", 2)), uint64(1), "incr wraps")
	_, err = mc.Increment("absent", 1)
	same(err, memcache.ErrCacheMiss, "incr of nothing")
	same(set("word", "abc"), nil, "set")
	_, err = mc.Increment("word", 1)
	says(err, "non-numeric", "incr of a word")

	// touch, expiry.
	same(mc.Touch("word", 100), nil, "touch")
	same(mc.Touch("absent", 100), memcache.ErrCacheMiss, "touch of nothing")
	same(mc.Touch("word", -1), nil, "touch")
	same(text("word"), "<miss>", "expired")
	same(mc.Set(&memcache.Item{Key: "short", Value: []byte("v"), Expiration: 1}), nil, "set")
	for end := time.Now().Add(10 * time.Second); text("short") != "<miss>"; time.Sleep(50 * time.Millisecond) {
		same(time.Now().Before(end), true, "a second is over within 10")
	}

	// Large values.
	large := noise(900 * 1024)
	same(mc.Set(&memcache.Item{Key: "large", Value: large}), nil, "large")
	item, err := mc.Get("large")
	same(err, nil, "large")
	same(bytes.Equal(item.Value, large), true, "900 KB, byte for byte")
	err = mc.Set(&memcache.Item{Key: "large", Value: noise(2 << 20)})
	says(err, "object too large for cache", "too large")
	same(text("large"), "<miss>", "a refused set leaves no old value")
	same(set("after", "v"), nil, "set")
	same(text("after"), "v", "after")

	// Keys. What is too long the client refuses on its own.
	longest := strings.Repeat("k", 250)
	same(set(longest, "v"), nil, "longest")
	same(text(longest), "v", "longest")
	same(set(longest+"k", "v"), memcache.ErrMalformedKey, "too long")

	// flush_all.
	same(mc.DeleteAll(), nil, "flush_all")
	same(text("after"), "<miss>", "flushed")
	same(set("after", "flush"), nil, "set")
	same(text("after"), "flush", "a store in the same second as flush lives")

	fmt.Printf("ok gomemcache %s (%d checks)\n", os.Args[2], count)
}
