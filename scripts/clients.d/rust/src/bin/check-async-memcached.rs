//! The Rust crate `async-memcached`: text and meta commands on tokio, pipelined. Takes the server's port.

use std::time::{Duration, Instant};

use async_memcached::{AsciiProtocol, Client, Error, MetaProtocol};
use check_clients::{Checks, noise};

type Done = Result<(), Error>;

/// The value of a key, by `get`.
async fn value(mc: &mut Client, key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(mc.get(key).await?.and_then(|value| value.data))
}

fn some(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

/// The sets and the gets of many keys go out in one piece.
async fn many(checks: &mut Checks, mc: &mut Client) -> Done {
    let pairs: Vec<(String, String)> = (0..100)
        .map(|i| (format!("many:{i}"), format!("value {i}")))
        .collect();
    let pairs: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
    let stored = mc.set_multi(&pairs, Some(100), Some(7)).await?;
    checks.same(Ok::<_, Error>(stored.values().all(Result::is_ok)), true);
    keys.push("absent");
    let got = mc.get_multi(&keys).await?;
    checks.same(Ok::<_, Error>(got.len()), 100);
    for (value, (key, want)) in got.iter().zip(&pairs) {
        checks.same(Ok::<_, Error>(value.key.as_slice()), key.as_bytes());
        checks.same(Ok::<_, Error>(value.data.clone()), some(want));
        checks.same(Ok::<_, Error>(value.flags), Some(7));
    }
    let added = mc
        .add_multi(&[("many:0", "x"), ("fresh", "y")], None, None)
        .await?;
    checks.same(Ok::<_, Error>(added[&"fresh"].is_ok()), true);
    checks.same(
        Ok::<_, Error>(format!("{:?}", added[&"many:0"])),
        "Err(Protocol(NotStored))".into(),
    );

    // Its dump of all keys knows no dump that begins with OK, as those of memcached 1.6.45 do.
    mc.delete_multi_no_reply(&keys).await?;
    // The client takes nothing for an error.
    checks.refused(mc.get_multi(&keys).await, "NotFound");
    Ok(())
}

async fn text(checks: &mut Checks, mc: &mut Client) -> Done {
    checks.same(mc.set("mode", "a", None, None).await, ());
    checks.refused(mc.add("mode", "x", None, None).await, "NotStored");
    checks.same(mc.add("other", "b", None, None).await, ());
    checks.same(value(mc, "mode").await, some("a"));
    checks.same(value(mc, "absent").await, None);
    checks.same(mc.delete("mode").await, ());
    checks.refused(mc.delete("mode").await, "NotFound");
    mc.delete_no_reply("other").await?;
    checks.same(value(mc, "other").await, None);

    checks.same(mc.set("n", 10_u64, None, None).await, ());
    checks.same(mc.increment("n", 5).await, 15);
    checks.same(mc.decrement("n", 6).await, 9);
    mc.increment_no_reply("n", 1).await?;
    mc.decrement_no_reply("n", 4).await?;
    checks.same(mc.increment("n", 0).await, 6);
    checks.same(mc.decrement("n", 100).await, 0);
    checks.same(mc.set("n", u64::MAX, None, None).await, ());
    checks.same(mc.increment("n", 2).await, 1);
    checks.refused(mc.increment("absent", 1).await, "NotFound");

    checks.same(mc.set("short", "v", Some(1), None).await, ());
    checks.same(mc.set("past", "v", Some(-1), None).await, ());
    checks.same(value(mc, "past").await, None);
    let end = Instant::now() + Duration::from_secs(10);
    while value(mc, "short").await?.is_some() {
        assert!(Instant::now() < end, "a second is not over after 10 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let large = noise(900 * 1024);
    checks.same(mc.set("large", &large[..], None, None).await, ());
    checks.same(value(mc, "large").await, Some(large));
    checks.same(mc.set("k".repeat(250), "v", None, None).await, ());
    checks.same(value(mc, &"k".repeat(250)).await, some("v"));
    checks.refused(mc.get("k".repeat(251)).await, "KeyTooLong");
    Ok(())
}

async fn meta(checks: &mut Checks, mc: &mut Client) -> Done {
    checks.same(mc.meta_get("meta", false, None, Some(&["v"])).await, None);
    checks.same(mc.meta_get("meta", true, None, Some(&["v"])).await, None);
    let flags = ["F42", "T100"];
    checks.same(
        mc.meta_set("meta", "one", false, None, Some(&flags)).await,
        None,
    );
    let wanted = ["v", "f", "t", "s", "h", "c", "k"];
    let opaque = Some(&b"opaque"[..]);
    let got = mc
        .meta_get("meta", false, opaque, Some(&wanted))
        .await?
        .expect("a hit");
    checks.same(Ok::<_, Error>(got.data), some("one"));
    checks.same(
        Ok::<_, Error>((got.flags, got.size, got.hit_before)),
        (Some(42), Some(3), Some(false)),
    );
    checks.same(Ok::<_, Error>(got.opaque_token), some("opaque"));
    checks.same(Ok::<_, Error>(got.key), some("meta"));
    let ttl = got.ttl_remaining.expect("a time to live");
    checks.same(Ok::<_, Error>((90..=100).contains(&ttl)), true);
    let unique = got.cas.expect("a unique");

    // cas, modes, quiet ones.
    let other = format!("C{}", unique + 1);
    checks.refused(
        mc.meta_set("meta", "two", false, None, Some(&[&other]))
            .await,
        "Exists",
    );
    let own = format!("C{unique}");
    checks.same(
        mc.meta_set("meta", "two", false, None, Some(&[&own])).await,
        None,
    );
    checks.refused(
        mc.meta_set("meta", "x", false, None, Some(&["ME"])).await,
        "NotStored",
    );
    checks.refused(
        mc.meta_set("absent", "x", false, None, Some(&["MR"])).await,
        "NotStored",
    );
    checks.same(
        mc.meta_set("meta", "!", true, None, Some(&["MA"])).await,
        None,
    );
    checks.same(value(mc, "meta").await, some("two!"));

    // Counters.
    let counted = |got: Option<async_memcached::MetaValue>| got.and_then(|value| value.data);
    let flags = ["v", "N0", "J10"];
    checks.same(
        mc.meta_increment("count", false, None, Some(5), Some(&flags))
            .await
            .map(counted),
        some("10"),
    );
    checks.same(
        mc.meta_increment("count", false, None, Some(5), Some(&flags))
            .await
            .map(counted),
        some("15"),
    );
    checks.same(
        mc.meta_decrement("count", false, None, Some(100), Some(&["v"]))
            .await
            .map(counted),
        some("0"),
    );
    checks.same(
        mc.meta_increment("count", true, None, None, None).await,
        None,
    );
    // What became shorter is padded.
    checks.same(value(mc, "count").await, some("1 "));
    checks.refused(
        mc.meta_increment("absent", false, None, None, None).await,
        "NotFound",
    );

    // Stale: the first to come wins and is to fetch it anew.
    checks.same(
        mc.meta_delete("meta", false, None, Some(&["I", "T30"]))
            .await,
        None,
    );
    let read = mc
        .meta_get("meta", false, None, Some(&["v"]))
        .await?
        .expect("a hit");
    checks.same(
        Ok::<_, Error>((read.is_stale, read.is_recache_winner)),
        (Some(true), Some(true)),
    );
    let read = mc
        .meta_get("meta", false, None, Some(&["v"]))
        .await?
        .expect("a hit");
    checks.same(
        Ok::<_, Error>((read.is_stale, read.is_recache_winner)),
        (Some(true), Some(false)),
    );
    checks.same(mc.meta_delete("meta", true, None, None).await, None);
    checks.refused(mc.meta_delete("meta", false, None, None).await, "NotFound");

    // Many, of which only what is there is answered.
    let pairs: Vec<(String, &str)> = (0..100).map(|i| (format!("meta:{i}"), "v")).collect();
    checks.same(mc.meta_set_multi(&pairs, Some(&["T100"])).await, vec![]);
    let keys: Vec<&str> = pairs
        .iter()
        .map(|(key, _)| key.as_str())
        .chain(["absent"])
        .collect();
    let got = mc.meta_get_multi(&keys, Some(&["v"])).await?;
    let names: Vec<_> = got.into_iter().filter_map(|value| value.key).collect();
    checks.same(Ok::<_, Error>(names.len()), 100);
    checks.same(
        Ok::<_, Error>(
            names
                .iter()
                .zip(&keys)
                .all(|(got, want)| got == want.as_bytes()),
        ),
        true,
    );
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let port = std::env::args().nth(1).expect("a port");
    let checks = &mut Checks::default();
    let mut mc = Client::new(format!("tcp://127.0.0.1:{port}")).await?;
    many(checks, &mut mc).await?;
    text(checks, &mut mc).await?;
    meta(checks, &mut mc).await?;
    // What the server refuses ends an operation, not the connection. Whether the client sees it so is its own affair.
    let mut other = Client::new(format!("tcp://127.0.0.1:{port}")).await?;
    let refused = other.set("large", &noise(2 << 20)[..], None, None).await;
    checks.refused(refused, "object too large for cache");
    checks.same(value(&mut mc, "large").await, None);

    checks.same(
        mc.version()
            .await
            .map(|version| version.matches('.').count()),
        2,
    );
    checks.same(
        mc.stats().await.map(|stats| stats.contains_key("pid")),
        true,
    );
    checks.same(mc.flush_all().await, ());
    checks.same(value(&mut mc, "n").await, None);
    checks.same(mc.set("after", "flush", None, None).await, ());
    checks.same(Ok::<_, Error>(mc.is_closed()), false);
    println!("{checks}");
    Ok(())
}
