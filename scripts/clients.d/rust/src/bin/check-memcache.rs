//! The Rust crate `memcache`, in text and in binary. Takes the server's port, and the root of its certificate if it speaks
//! TLS.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use check_clients::{Checks, noise};
use memcache::{Client, MemcacheError};

const WEEK: u32 = 7 * 24 * 3600;

fn check(
    checks: &mut Checks,
    port: &str,
    root: Option<&str>,
    binary: bool,
) -> Result<(), MemcacheError> {
    let protocol = if binary { "binary" } else { "ascii" };
    let mut url = format!("127.0.0.1:{port}?timeout=10&tcp_nodelay=true&protocol={protocol}");
    url = match root {
        Some(root) => format!("memcache+tls://{url}&ca_path={root}"),
        None => format!("memcache://{url}"),
    };
    let mc = Client::connect(url.clone())?;
    let text = |key: &str| mc.get::<String>(key);
    let some = |value: &str| Some(value.to_string());
    // The client takes a "not stored" for a success: all of them in text, prepend's in binary.
    let not_stored = |checks: &mut Checks, got: Result<(), MemcacheError>, word: &str| {
        if binary {
            checks.refused(got, word)
        } else {
            checks.same(got, ())
        }
    };

    // Storing and reading many.
    let keys: Vec<String> = (0..100).map(|i| format!("many:{i}")).collect();
    for key in &keys {
        checks.same(mc.set(key, format!("of {key}"), 100), ());
    }
    let mut names: Vec<&str> = keys.iter().map(String::as_str).collect();
    names.push("absent");
    let many: HashMap<String, String> = keys
        .iter()
        .map(|key| (key.clone(), format!("of {key}")))
        .collect();
    checks.same(mc.gets(&names), many);
    for key in &keys {
        checks.same(mc.delete(key), true);
    }
    checks.same(mc.gets::<String>(&names), HashMap::new());
    checks.same(text("absent"), None);

    // add, replace, append, prepend.
    mc.delete("mode")?;
    checks.same(mc.add("mode", "b", 0), ());
    not_stored(checks, mc.add("mode", "x", 0), "KeyExists");
    checks.same(text("mode"), some("b"));
    checks.same(mc.replace("mode", "c", 0), ());
    not_stored(checks, mc.replace("absent", "x", 0), "KeyNotFound");
    checks.same(mc.append("mode", "d"), ());
    checks.same(mc.prepend("mode", "a"), ());
    checks.same(text("mode"), some("acd"));
    not_stored(checks, mc.append("absent", "x"), "Unknown(5)");
    checks.same(mc.prepend("absent", "x"), ());
    checks.same(text("absent"), None);

    // cas.
    mc.set("cas", "one", 0)?;
    let got: HashMap<String, (Vec<u8>, u32, Option<u64>)> = mc.gets(&["cas"])?;
    let unique = got["cas"].2.expect("a unique");
    checks.same(mc.cas("cas", "two", 0, unique), true);
    checks.same(mc.cas("cas", "three", 0, unique), false);
    checks.same(text("cas"), some("two"));
    checks.same(mc.cas("absent", "x", 0, unique), false);

    // increment, decrement.
    mc.set("n", 10, 0)?;
    checks.same(mc.increment("n", 5), 15);
    checks.same(mc.decrement("n", 6), 9);
    checks.same(mc.decrement("n", 100), 0);
    mc.set("n", u64::MAX, 0)?;
    checks.same(mc.get("n"), Some(u64::MAX));
    checks.same(mc.increment("n", 2), 1);
    mc.set("word", "abc", 0)?;
    let non_numeric = if binary { "Unknown(6)" } else { "non-numeric" };
    checks.refused(mc.increment("word", 1), non_numeric);
    checks.refused(mc.decrement("word", 1), non_numeric);
    checks.same(text("word"), some("abc"));

    // touch, expiry.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs() as u32;
    mc.set("t", "v", 0)?;
    checks.same(mc.touch("t", 100), true);
    checks.same(mc.touch("absent", 100), false);
    checks.same(text("t"), some("v"));
    checks.same(mc.touch("t", now - WEEK), true);
    checks.same(text("t"), None);
    checks.same(mc.set("past", "v", now - WEEK), ());
    checks.same(text("past"), None);
    checks.same(mc.add("past", "v", now + WEEK), ());
    checks.same(text("past"), some("v"));
    checks.same(mc.delete("past"), true);
    checks.same(mc.delete("past"), false);
    mc.set("short", "v", 1)?;
    let end = Instant::now() + Duration::from_secs(10);
    while text("short")?.is_some() {
        assert!(Instant::now() < end, "a second is not over after 10 s");
        sleep(Duration::from_millis(50));
    }
    not_stored(checks, mc.replace("short", "v", 0), "KeyNotFound");

    // Large values.
    let large = noise(900 * 1024);
    checks.same(mc.set("large", &large[..], 0), ());
    checks.same(
        mc.get::<Vec<u8>>("large")
            .map(|got| got.as_deref() == Some(&large[..])),
        true,
    );
    let too_large = if binary {
        "ValueTooLarge"
    } else {
        "object too large for cache"
    };
    checks.refused(mc.set("large", &noise(2 << 20)[..], 0), too_large);
    checks.same(text("large"), None);
    checks.same(mc.set("after", "v", 0), ());
    checks.same(text("after"), some("v"));

    // Keys. What is too long the client refuses on its own.
    checks.same(mc.set(&"k".repeat(250), "v", 0), ());
    checks.same(text(&"k".repeat(250)), some("v"));
    checks.refused(text(&"k".repeat(251)), "KeyTooLong");
    checks.same(mc.set("schlüssel", "v", 0), ());
    checks.same(text("schlüssel"), some("v"));

    // stats, version, flush.
    if binary {
        // In text the client gives none.
        checks.same(mc.stats().map(|all| all[0].1.contains_key("pid")), true);
    }
    checks.same(mc.version().map(|all| all[0].1.matches('.').count()), 2);
    checks.same(mc.flush(), ());
    checks.same(text("after"), None);
    checks.same(mc.set("after", "flush", 0), ());
    checks.same(Client::connect(url)?.get("after"), some("flush"));
    Ok(())
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (port, root) = (args.next().expect("a port"), args.next());
    let mut checks = Checks::default();
    for binary in [false, true] {
        if let Err(error) = check(&mut checks, &port, root.as_deref(), binary) {
            panic!("binary {binary}: {error:?}");
        }
    }
    println!("{checks}");
}
