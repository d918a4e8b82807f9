import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

import net.spy.memcached.CASResponse;
import net.spy.memcached.CASValue;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.ConnectionFactoryBuilder.Protocol;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.transcoders.SerializingTranscoder;

/**
 * spymemcached: one connection for all threads, everything asynchronous, gets gathered into multi-gets; in text and in
 * binary. Takes the server's port and the version to print.
 */
public final class CheckSpymemcached {
    private static final int MANY = 100;
    private static int count;

    private CheckSpymemcached() {
    }

    /** Counts one check: got must equal want. */
    private static void same(Object got, Object want, String what) {
        count++;
        if (!Objects.deepEquals(got, want)) {
            throw new AssertionError(what + ": got " + shown(got) + ", want " + shown(want));
        }
    }

    private static String shown(Object value) {
        String text = String.valueOf(value);
        return text.length() < 200 ? text : text.substring(0, 200);
    }

    private static <T> T of(Future<T> future) throws Exception {
        return future.get(10, TimeUnit.SECONDS);
    }

    /** Counts one check: the future must end in an error with the word in it, or with a false: the client has both. */
    private static void refused(Future<Boolean> future, String word) throws Exception {
        try {
            same(of(future), false, word);
        } catch (ExecutionException error) {
            same(error.getMessage().toLowerCase(Locale.ROOT).contains(word), true, error.getMessage());
        }
    }

    private static byte[] noise(int size) {
        byte[] bytes = new byte[size];
        new Random(900).nextBytes(bytes);
        return bytes;
    }

    private static void check(InetSocketAddress server, Protocol protocol) throws Exception {
        // Larger than the server takes, so that it is the server that refuses.
        SerializingTranscoder transcoder = new SerializingTranscoder(4 << 20);
        transcoder.setCompressionThreshold(4 << 20);
        MemcachedClient mc = new MemcachedClient(
            new ConnectionFactoryBuilder().setProtocol(protocol).setTranscoder(transcoder).setOpTimeout(10_000).build(),
            List.of(server));

        // Storing and reading many, all under way at once.
        Map<String, Object> many = new HashMap<>();
        List<Future<Boolean>> stores = new ArrayList<>();
        for (int i = 0; i < MANY; i++) {
            many.put("many:" + i, "value " + i);
            stores.add(mc.set("many:" + i, 100, "value " + i));
        }
        for (Future<Boolean> store : stores) {
            same(of(store), true, "set");
        }
        List<String> keys = new ArrayList<>(many.keySet());
        List<Future<Object>> reads = new ArrayList<>();
        for (String key : keys) {
            reads.add(mc.asyncGet(key));
        }
        for (int i = 0; i < MANY; i++) {
            same(of(reads.get(i)), many.get(keys.get(i)), keys.get(i));
        }
        keys.add("absent");
        same(mc.getBulk(keys), many, "getBulk");
        for (String key : many.keySet()) {
            same(of(mc.delete(key)), true, "delete");
        }
        same(mc.getBulk(keys), Map.of(), "getBulk");
        same(mc.get("absent"), null, "a miss");
        same(of(mc.delete("absent")), false, "delete of nothing");

        // add, replace, append, prepend.
        same(of(mc.add("mode", 0, "b")), true, "add");
        same(of(mc.add("mode", 0, "x")), false, "add again");
        same(of(mc.append("mode", "c")), true, "append");
        same(of(mc.prepend("mode", "a")), true, "prepend");
        same(mc.get("mode"), "abc", "mode");
        same(of(mc.append("absent", "x")), false, "append to nothing");
        same(of(mc.replace("absent", 0, "x")), false, "replace of nothing");
        same(of(mc.replace("mode", 0, "d")), true, "replace");
        same(mc.get("mode"), "d", "mode");

        // cas.
        same(of(mc.set("cas", 0, "one")), true, "set");
        CASValue<Object> read = mc.gets("cas");
        same(read.getValue(), "one", "gets");
        same(mc.cas("cas", read.getCas(), "two"), CASResponse.OK, "cas");
        same(mc.cas("cas", read.getCas(), "three"), CASResponse.EXISTS, "a unique is good for one store");
        same(mc.cas("absent", read.getCas(), "x"), CASResponse.NOT_FOUND, "cas of nothing");
        same(mc.get("cas"), "two", "cas");

        // incr, decr: without an initial value, and with one.
        same(mc.incr("n", 5), -1L, "incr of nothing");
        same(mc.incr("n", 5, 10), 10L, "incr with an initial value");
        same(mc.incr("n", 5), 15L, "incr");
        same(mc.decr("n", 6), 9L, "decr");
        same(mc.decr("n", 100), 0L, "decr stops at 0");
        same(of(mc.asyncIncr("n", 7)), 7L, "incr");

        // touch, gat, expiry.
        same(of(mc.touch("mode", 100)), true, "touch");
        same(of(mc.touch("absent", 100)), false, "touch of nothing");
        if (protocol == Protocol.BINARY) {
            // In text the client has none.
            same(mc.getAndTouch("mode", 100).getValue(), "d", "gat");
            same(mc.getAndTouch("absent", 100), null, "gat of nothing");
        }
        same(of(mc.set("short", 1, "v")), true, "set");
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (mc.get("short") != null) {
            same(System.nanoTime() < end, true, "a second is over within 10");
            Thread.sleep(50);
        }

        // Large values, and one after a refusal.
        byte[] large = noise(900 * 1024);
        same(of(mc.set("large", 0, large)), true, "large");
        same(Arrays.equals((byte[]) mc.get("large"), large), true, "900 KB, byte for byte");
        refused(mc.set("large", 0, noise(2 << 20)), "too large");
        same(mc.get("large"), null, "a refused set leaves no old value");
        same(of(mc.set("after", 0, "v")), true, "set");
        same(mc.get("after"), "v", "after");
        same(of(mc.set("k".repeat(250), 0, 7)), true, "longest key");
        same(mc.get("k".repeat(250)), 7, "longest key");

        // stats, version, flush.
        same(mc.getStats().get(server).containsKey("pid"), true, "stats");
        same(mc.getStats("settings").get(server).get("item_size_max"), "1048576", "stats settings");
        same(mc.getVersions().get(server).split("\\.").length, 3, "version");
        same(of(mc.flush()), true, "flush");
        same(mc.get("after"), null, "flushed");
        same(of(mc.set("after", 0, "flush")), true, "set");
        same(mc.get("after"), "flush", "a store in the same second as flush lives");
        same(mc.shutdown(10, TimeUnit.SECONDS), true, "shutdown");
    }

    /** Runs the checks. */
    public static void main(String[] args) throws Exception {
        System.setProperty("net.spy.log.LoggerImpl", "net.spy.memcached.compat.log.SunLogger");
        Logger.getLogger("net.spy.memcached").setLevel(Level.OFF);
        for (Protocol protocol : Protocol.values()) {
            try {
                check(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), protocol);
            } catch (Throwable failure) {
                failure.printStackTrace();
                // The client's thread would wait for ever.
                System.exit(1);
            }
        }
        System.out.printf("ok spymemcached %s, text and binary (%d checks)%n", args[1], count);
        System.exit(0);
    }
}
