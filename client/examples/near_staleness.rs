//! How long a near cache that follows its node gives a value that another client has overwritten, while the node takes 100,000 writes a
//! second.
//!
//! ```text
//! cargo run --release -p ketch-client --example near_staleness -- [HOST:PORT [WRITES_A_SECOND [SECONDS]]]
//! ```
//!
//! One thread writes other keys at that rate; another overwrites a key that is near, and asks the near cache for it until the old value is
//! gone. Without an address it starts a ketch of its own.
//!
//! It tells two stages apart: from the reply to the write to when the event's line is here (a feed of the watched keys alone), and all of
//! it, to when the near cache has dropped the old value. Who asks sleeps in between: a thread that does nothing but ask would take a core
//! from those that are measured.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ketch_client::feed::{Ask, Event, Feed};
use ketch_client::metrics::Recorder;
use ketch_client::near::NearCache;
use ketch_client::{Client, ClientOptions};
use ketch_testing::Kind;

const TICK: Duration = Duration::from_millis(1);
/// How often the near cache is asked: as exact is what is measured.
const LOOK: Duration = Duration::from_micros(100);
const HOUR: Duration = Duration::from_secs(3600);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| words.get(at).map_or(Ok(default), |word| word.parse());
    let (rate, seconds) = (number(1, 100_000)?, number(2, 10)?);
    let server = words.is_empty().then(|| Kind::Ketch.start());
    let address = match &server {
        Some(server) => format!("127.0.0.1:{}", server.port()),
        None => words[0].clone(),
    };
    let recorder = Arc::new(Recorder::default());
    let near = NearCache::new(HOUR).follow();
    let options = ClientOptions::default()
        .near_cache(near)
        .metrics(recorder.clone());
    let reader = Client::with_nodes(address.as_str(), options)?;
    let writer = Client::with_nodes(address.as_str(), ClientOptions::default())?;
    while recorder.feeds_armed() == 0 {
        thread::sleep(TICK);
    }
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut stale, mut came) = (Vec::new(), Vec::new());
    let (tell, told) = mpsc::channel();
    let feed = Feed::new(
        address.parse()?,
        &ClientOptions::default(),
        Ask::default().prefix("watched-"),
    );
    let begun = Instant::now();
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let socket = TcpStream::connect(&address)?;
        let (is_over, written) = (&is_over, &written);
        scope.spawn(move || write_others(socket, rate, is_over, written));
        scope.spawn(move || hear(feed, &tell, is_over));
        let end = begun + Duration::from_secs(seconds);
        let mut value = 0_u64;
        while Instant::now() < end {
            // Until it is near, and stays so.
            let key = format!("watched-{}", value % 100);
            let hits = recorder.near_lookups().0;
            while recorder.near_lookups().0 == hits {
                if reader.get(&key)?.is_none() {
                    writer.set(&key, 0, None)?;
                }
            }
            value += 1;
            writer.set(&key, value, None)?;
            let since = Instant::now();
            while reader.get(&key)?.and_then(|item| item.number::<u64>()) != Some(value) {
                thread::sleep(LOOK);
            }
            stale.push(since.elapsed());
            if let Some(at) = told.try_iter().last() {
                came.push(Instant::saturating_duration_since(&at, since));
            }
            thread::sleep(TICK);
        }
        is_over.store(true, Relaxed);
        Ok(())
    })?;
    let rate = written.load(Relaxed) as f64 / begun.elapsed().as_secs_f64();
    let (events, armed, lost) = recorder.feeds();
    println!("{rate:.0} writes a second; {} overwritten", stale.len());
    for (stage, mut times) in [("the line is here", came), ("stale", stale)] {
        times.sort_unstable();
        let at = |part: f64| times[(times.len().saturating_sub(1) as f64 * part) as usize];
        if !times.is_empty() {
            let (p50, p99, most) = (at(0.5), at(0.99), at(1.0));
            println!("{stage}: {p50:?} (p50), {p99:?} (p99), {most:?} (longest)");
        }
    }
    println!("{events} events, armed {armed} times, lost {lost} times");
    Ok(())
}

/// Tells when the event of a watched key came.
fn hear(mut feed: Feed, tell: &mpsc::Sender<Instant>, is_over: &AtomicBool) {
    while !is_over.load(Relaxed) {
        if let Some(Event::Change(_)) = feed.next(100 * TICK) {
            // The one who asks may have ended.
            let _ = tell.send(Instant::now());
        }
    }
}

/// Stores of other keys, so many a second, in batches of a millisecond.
fn write_others(mut socket: TcpStream, rate: u64, is_over: &AtomicBool, written: &AtomicU64) {
    let begun = Instant::now();
    let mut answers = [0; 64 << 10];
    let mut batch = Vec::new();
    while !is_over.load(Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        let count = (due - written.load(Relaxed)).min(1000);
        batch.clear();
        for n in 0..count {
            let key = (written.load(Relaxed) + n) % 50_000;
            batch.extend_from_slice(
                format!("set other-key-{key:08} 0 0 1 noreply\r\nx\r\n").as_bytes(),
            );
        }
        batch.extend_from_slice(b"mn\r\n");
        if socket.write_all(&batch).is_err() || !matches!(socket.read(&mut answers), Ok(1..)) {
            return;
        }
        written.fetch_add(count, Relaxed);
        thread::sleep(TICK);
    }
}
