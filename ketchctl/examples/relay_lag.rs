//! How long a relay takes, event by event: one process writes, another watches the target's feed. Keys hold the time at which they
//! were written, so both must run on one machine.
//!
//! ```text
//!  relay_lag write HOST:PORT PER_SECOND SECONDS     deletes keys that are all different, or with "set" behind it stores them
//!  relay_lag watch HOST:PORT SECONDS                what arrives: count, and the 50th, 99th, 99.9th percentile in milliseconds
//! ```
//!
//! The watcher prints a line a second, and at the end one for all of it.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ketch_client::feed::{Ask, Event, Feed, Key};
use ketch_client::{ClientOptions, Node};

/// What the keys begin with; behind it stand microseconds since 1970, and a number.
const PREFIX: &str = "lag:";
/// How often something is written.
const TICK: Duration = Duration::from_millis(2);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["write", node, rate, seconds] => write(node, rate.parse()?, seconds.parse()?, false),
        ["write", node, rate, seconds, "set"] => write(node, rate.parse()?, seconds.parse()?, true),
        ["watch", node, seconds] => watch(node, seconds.parse()?),
        _ => Err(
            "relay_lag write HOST:PORT PER_SECOND SECONDS [set] | watch HOST:PORT SECONDS".into(),
        ),
    }
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

fn write(node: &str, per_second: u64, seconds: f64, set: bool) -> Result<(), Box<dyn Error>> {
    let mut socket = TcpStream::connect(node)?;
    socket.set_nodelay(true)?;
    let mut replies = socket.try_clone()?;
    // Replies are quiet; whatever comes is read, so that nobody waits for it.
    thread::spawn(move || while let Ok(1..) = replies.read(&mut [0; 4096]) {});
    let begun = Instant::now();
    let (mut written, mut requests) = (0u64, Vec::new());
    while begun.elapsed().as_secs_f64() < seconds {
        let due = (begun.elapsed().as_secs_f64() * per_second as f64) as u64;
        requests.clear();
        let now = unix_us();
        for n in written..due {
            match set {
                true => write!(requests, "ms {PREFIX}{now}:{n} 2 q T60\r\nxx\r\n")?,
                false => write!(requests, "md {PREFIX}{now}:{n} q\r\n")?,
            }
        }
        written = due.max(written);
        socket.write_all(&requests)?;
        thread::sleep(TICK);
    }
    println!("wrote {written}");
    Ok(())
}

fn watch(node: &str, seconds: f64) -> Result<(), Box<dyn Error>> {
    let node: Node = node.parse()?;
    let mut feed = Feed::new(
        node,
        &ClientOptions::default(),
        Ask::default().prefix(PREFIX),
    );
    let begun = Instant::now();
    let (mut all, mut some, mut tell_at) = (Vec::new(), Vec::new(), 1.0);
    while begun.elapsed().as_secs_f64() < seconds {
        match feed.next(Duration::from_millis(100)) {
            Some(Event::Change(change)) => {
                if let Key::Text(key) = change.key
                    && let Some(at) = written_at(key)
                {
                    some.push(unix_us().saturating_sub(at) as u32);
                }
            }
            Some(Event::Lost(why)) => println!("lost: {why}"),
            _ => {}
        }
        if begun.elapsed().as_secs_f64() >= tell_at {
            println!("{tell_at:.0}s {}", summary(&mut some));
            all.append(&mut some);
            tell_at += 1.0;
        }
    }
    all.append(&mut some);
    println!("all {}", summary(&mut all));
    Ok(())
}

fn written_at(key: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
    text.split(':').next()?.parse().ok()
}

fn summary(us: &mut [u32]) -> String {
    us.sort_unstable();
    let at = |share: f64| {
        let at = (us.len() as f64 * share) as usize;
        us.get(at.min(us.len().saturating_sub(1)))
            .map_or(0.0, |&us| f64::from(us) / 1000.0)
    };
    format!(
        "count={} p50={:.1} p99={:.1} p999={:.1}",
        us.len(),
        at(0.5),
        at(0.99),
        at(0.999)
    )
}
