// memjs: the binary protocol in Node, many commands at a time on one socket. It has no multi-get and
// no cas, and its prepend sends an append, which is not checked.
"use strict";
const assert = require("node:assert/strict");
const crypto = require("node:crypto");
const { setTimeout: pause } = require("node:timers/promises");
const memjs = require("memjs");

const SERVER = `127.0.0.1:${process.argv[2]}`;
// Bytes that look random, the same in every run.
const noise = (size) =>
  crypto.createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(size));
const LARGE = noise(900 * 1024);
const TOO_LARGE = noise(2 * 1024 * 1024);
// As unsigned as the wire: the client refuses to write a -1.
const MINUS_ONE = 0xffffffff;

let count = 0;
function same(got, want, what) {
  count += 1;
  assert.deepEqual(got, want, what);
}
async function refused(promise, word) {
  count += 1;
  await assert.rejects(promise, { message: new RegExp(word) });
}
const text = async (mc, key) => {
  const { value } = await mc.get(key);
  return value === null ? null : value.toString();
};

const client = () => memjs.Client.create(SERVER, { timeout: 10, retries: 1, logger: { log() {} } });

async function checks() {
  const mc = client();

  // A hundred at a time: the answers are told apart by their opaque.
  const keys = Array.from({ length: 100 }, (_, i) => `many:${i}`);
  const all = (of) => Promise.all(keys.map(of));
  same(await all((key) => mc.set(key, `of ${key}`)), keys.map(() => true));
  same(await all((key) => text(mc, key)), keys.map((key) => `of ${key}`));
  same(await all((key) => mc.delete(key)), keys.map(() => true));
  same(await all((key) => text(mc, key)), keys.map(() => null));
  same(await mc.get("absent"), { value: null, flags: null });

  // add, replace, append.
  same(await mc.add("mode", "a"), true);
  same(await mc.add("mode", "x"), false);
  same(await mc.replace("mode", "b"), true);
  same(await mc.replace("absent", "x"), false);
  same(await mc.append("mode", "c"), true);
  same(await mc.get("mode"), { value: Buffer.from("bc"), flags: Buffer.alloc(4) });
  await refused(mc.append("absent", "x"), "Item not stored");
  same(await mc.set("empty", ""), true);
  same(await text(mc, "empty"), "");

  // Increment and decrement: a missing item begins at the initial value.
  same(await mc.increment("n", 5, { initial: 10 }), { success: true, value: 10 });
  same(await mc.increment("n", 5), { success: true, value: 15 });
  same(await mc.decrement("n", 6, {}), { success: true, value: 9 });
  same(await mc.decrement("n", 100, {}), { success: true, value: 0 });
  const steps = await all(() => mc.increment("n", 1));
  same(steps.map((step) => step.value), keys.map((_, i) => i + 1), "no step is lost");
  same(await text(mc, "n"), "100");
  await refused(mc.increment("no initial", 1, { expires: MINUS_ONE }), "Key not found");
  await refused(mc.decrement("no initial", 1, { expires: MINUS_ONE }), "Key not found");
  await mc.set("n", "18446744073709551615");
  same(await mc.increment("n", 2), { success: true, value: 1 }, "wraps at 2^64");
  await mc.set("word", "abc");
  await refused(mc.increment("word", 1), "non-numeric");
  await refused(mc.decrement("word", 1, {}), "non-numeric");
  same(await text(mc, "word"), "abc");

  // touch, expiry.
  await mc.set("t", "v");
  same(await mc.touch("t", 100), true);
  same(await mc.touch("absent", 100), false);
  same(await text(mc, "t"), "v");
  const longAgo = Math.floor(Date.now() / 1000) - 7 * 24 * 3600;
  same(await mc.touch("t", longAgo), true);
  same(await text(mc, "t"), null, "touched into the past");
  same(await mc.set("past", "v", { expires: longAgo }), true);
  same(await text(mc, "past"), null);
  same(await mc.add("past", "v", { expires: longAgo + 14 * 24 * 3600 }), true, "the past can be added");
  same(await text(mc, "past"), "v", "a time in the future");
  await mc.set("short", "v", { expires: 1 });
  const end = Date.now() + 10_000;
  while ((await text(mc, "short")) !== null) {
    assert(Date.now() < end, "expires: 1 is not over after 10 s");
    await pause(50);
  }
  same(await mc.replace("short", "v"), false);

  // delete.
  await mc.set("d", "v");
  same(await mc.delete("d"), true);
  same(await mc.delete("d"), false);

  // Large values, with others behind them on the same socket.
  same(await mc.set("large", LARGE), true);
  const [large, word] = await Promise.all([mc.get("large"), text(mc, "word")]);
  same(large.value.equals(LARGE), true, "900 KB, byte for byte");
  same(word, "abc");
  await refused(mc.set("large", TOO_LARGE), "Value too large");
  same(await text(mc, "large"), null, "a refused set leaves no old value");
  same(await mc.set("after", "v"), true);
  same(await text(mc, "after"), "v");

  // Keys. With one that is too long the server ends the connection behind its answer.
  same(await mc.set("k".repeat(250), "v"), true);
  same(await text(mc, "k".repeat(250)), "v");
  same(await mc.set("schlüssel with\n\0", "v"), true);
  same(await text(mc, "schlüssel with\n\0"), "v");
  const other = client();
  await refused(other.get("k".repeat(251)), "Invalid arguments");
  other.close();

  // stats, flush.
  const stats = (key) =>
    new Promise((resolve, reject) =>
      mc.statsWithKey(key, (error, _, lines) => (error ? reject(error) : resolve(lines))),
    );
  same(Number((await stats("")).pid) > 0, true);
  same((await stats("settings")).item_size_max, "1048576");
  same(await mc.flush(), { [SERVER]: true });
  same(await text(mc, "after"), null);
  same(await mc.set("after", "flush"), true);
  same(await text(mc, "after"), "flush", "a store in the same second as flush lives");
  mc.close();
  const again = client();
  same(await text(again, "after"), "flush", "connects again");
  again.close();
}

checks().then(() => {
  console.log(`ok memjs ${require("memjs/package.json").version} (${count} checks)`);
  process.exit(0);
}, (error) => {
  console.error(error);
  process.exit(1);
});
