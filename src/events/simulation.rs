//! A simulated server and near caches that follow its feed: whatever is slow, full, cut or comes back, no near cache holds a
//! value that has changed, once it has read all up to a heartbeat. One thread, and chance from a seed that is printed.

use std::collections::HashMap;

use super::subscription::Subscription;
use super::{By, Cause, Events, RingId, What, parse};
use crate::keyspace::testing::Rng;

const KEYS: usize = 40;

/// What the server holds: of each key the number of its last change.
struct Server {
    events: Events,
    values: HashMap<String, u64>,
    changes: u64,
}

impl Server {
    fn by(rng: &mut Rng) -> By {
        By {
            ring: RingId(rng.below(3) as u16),
            origin: 0,
            cause: Cause::Set,
        }
    }

    fn change(&mut self, rng: &mut Rng) {
        let key = key(rng);
        let by = Server::by(rng);
        self.changes += 1;
        match rng.below(40) {
            0..24 => {
                self.values.insert(key.clone(), self.changes);
                self.events
                    .to_feed(by, What::Set, key.as_bytes(), self.changes);
            }
            24..32 => {
                let cas = self.values.remove(&key).unwrap_or(0);
                self.events.deleted(by, key.as_bytes(), cas);
            }
            32..39 => {
                if let Some(cas) = self.values.remove(&key) {
                    let what = [What::Evict, What::Expire][rng.below(2)];
                    self.events.gone(by, what, key.as_bytes(), cas);
                }
            }
            _ => {
                self.events.flush(by, 0, || self.values.clear());
            }
        }
    }
}

fn key(rng: &mut Rng) -> String {
    let prefix = ["user:", "item/", "\u{e4} b:"][rng.below(3)];
    format!("{prefix}{}", rng.below(KEYS))
}

/// A near cache, and how it is connected.
struct Reader {
    prefix: &'static str,
    is_hashed: bool,
    /// What it believes: of each key the change that it has read, if there was a value.
    near: HashMap<String, Option<u64>>,
    /// None while the link is down.
    link: Option<Link>,
    /// Epoch and number of what it has seen last.
    seen: Option<(String, u64)>,
    gaps: u64,
    events: u64,
}

struct Link {
    subscription: Subscription,
    /// Bytes on their way.
    wire: Vec<u8>,
    /// Events since it was connected.
    count: u64,
}

impl Reader {
    fn connect(&mut self, server: &Server, now_ms: u64) {
        let mut words = vec![
            format!("prefix={}", encoded(self.prefix)),
            "heartbeat=10".to_owned(),
        ];
        if self.is_hashed {
            words.push("form=hash".to_owned());
        }
        match &self.seen {
            Some((epoch, seq)) => words.push(format!("from={epoch}:{seq}")),
            None => self.near.clear(),
        }
        let words = ["feed".to_owned()]
            .into_iter()
            .chain(words)
            .collect::<Vec<_>>();
        let watch = parse(words.iter().map(|word| word.as_bytes())).expect("known words");
        let super::Watch::Feed(mut subscription) = watch else {
            panic!("it is the feed");
        };
        let mut wire = Vec::new();
        let last = server.events.feed.collect();
        subscription.begin(&server.events.feed, last, now_ms, &mut wire);
        self.link = Some(Link {
            subscription: *subscription,
            wire,
            count: 0,
        });
    }

    /// What the server's thread does for it in a pass: `room` bytes are all that the socket takes.
    fn serve(&mut self, server: &Server, room: usize, now_ms: u64) {
        let Some(link) = &mut self.link else {
            return;
        };
        let room = room + link.wire.len();
        if !link
            .subscription
            .write(&server.events.feed, &mut link.wire, room)
        {
            link.subscription.beat(now_ms, &mut link.wire);
        }
    }

    /// Fetches a key from the server, as for a miss.
    fn fetch(&mut self, server: &Server, rng: &mut Rng) {
        let key = key(rng);
        if key.starts_with(self.prefix) && self.link.is_some() {
            let value = server.values.get(&key).copied();
            self.near.insert(key, value);
        }
    }

    /// Reads so many bytes, whole lines. Gives the number of the last heartbeat, if nothing came behind it.
    fn read(&mut self, bytes: usize) -> Option<u64> {
        let wire = &mut self.link.as_mut()?.wire;
        let bytes = bytes.min(wire.len());
        let end = wire[..bytes].iter().rposition(|&byte| byte == b'\n')? + 1;
        let text: Vec<u8> = wire.drain(..end).collect();
        let is_all = wire.is_empty();
        let text = String::from_utf8(text).expect("keys are encoded");
        let mut beat = None;
        for line in text.lines() {
            beat = self.note(line);
        }
        beat.filter(|_| is_all)
    }

    fn note(&mut self, line: &str) -> Option<u64> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let link = self.link.as_mut().expect("it reads");
        match words[0] {
            "OK" => {}
            "FEED" => match &self.seen {
                // It goes on where it was.
                Some((epoch, seq)) if epoch == words[1] && *seq == number(2) => {}
                _ => self.seen = Some((words[1].to_owned(), number(2))),
            },
            "GAP" => {
                self.gaps += 1;
                self.near.clear();
                self.seen.as_mut().expect("FEED came before").1 = number(1);
            }
            "HB" => {
                assert_eq!(number(1), link.count, "all events came");
                self.seen.as_mut().expect("FEED came before").1 = number(2);
                return Some(number(2));
            }
            _ => {
                link.count += 1;
                self.events += 1;
                assert_eq!(number(0), link.count, "no holes: {line}");
                let seen = self.seen.as_mut().expect("FEED came before");
                assert!(number(1) > seen.1, "in order: {line}");
                seen.1 = number(1);
                let (what, named) = (words[2], words[4]);
                if what == "flush" {
                    self.near.clear();
                } else if self.is_hashed {
                    let hash = u64::from_str_radix(named, 16).expect("a hash");
                    self.near
                        .retain(|key, _| super::key_hash(key.as_bytes()) != hash);
                } else {
                    let before = self.near.len();
                    self.near.retain(|key, _| encoded(key) != named);
                    assert!(before <= self.near.len() + 1);
                }
            }
        }
        None
    }
}

fn encoded(key: &str) -> String {
    let mut to = Vec::new();
    protocol::uri_encode(key.as_bytes(), &mut to);
    String::from_utf8(to).expect("ASCII")
}

/// Gives events, gaps and checks of all near caches.
fn simulate(seed: u64, history_bytes: usize) -> (u64, u64, u64) {
    println!("seed {seed}");
    let rng = &mut Rng::new(seed);
    let mut server = Server {
        events: Events::new(3),
        values: HashMap::new(),
        changes: 0,
    };
    server.events.feed.keep(history_bytes);
    let reader = |nth: usize| Reader {
        prefix: ["", "user:", "item/", "\u{e4} b:"][nth % 4],
        is_hashed: nth >= 4,
        near: HashMap::new(),
        link: None,
        seen: None,
        gaps: 0,
        events: 0,
    };
    let mut readers: Vec<Reader> = (0..8).map(reader).collect();
    let mut checks = 0;
    for step in 0..6000u64 {
        let now_ms = step;
        match rng.below(100) {
            0..60 => (0..1 + rng.below(6)).for_each(|_| server.change(rng)),
            60..61 => {
                // Nobody reads for long: it is recorded no more.
                readers.iter_mut().for_each(|reader| reader.link = None);
                server.events.end_feed();
                (0..rng.below(3)).for_each(|_| server.change(rng));
                server.events.begin_feed();
            }
            61..62 => {
                // kill -9, and a server that begins with nothing.
                readers.iter_mut().for_each(|reader| reader.link = None);
                server.events = Events::new(3);
                server.events.feed.keep(history_bytes);
                server.events.begin_feed();
                server.values.clear();
            }
            62..66 => {
                let nth = rng.below(readers.len());
                readers[nth].link = None;
            }
            _ => {}
        }
        let nth = rng.below(readers.len());
        let reader = &mut readers[nth];
        if reader.link.is_none() && rng.below(3) == 0 {
            server.events.begin_feed();
            reader.connect(&server, now_ms);
        }
        for reader in &mut readers {
            if rng.below(3) == 0 {
                reader.fetch(&server, rng);
            }
        }
        // A pass of the thread: all is collected, then all are served; some take little, some nothing.
        let last = server.events.feed.collect();
        for reader in &mut readers {
            let room = [0, 20, 200, 100_000][rng.below(4)];
            reader.serve(&server, room, now_ms);
            let bytes = [0, 50, 100_000][rng.below(3)];
            if reader.read(bytes) == Some(last) {
                // All that has happened is read: what it holds is what the server holds.
                checks += 1;
                for (key, value) in &reader.near {
                    let truth = server.values.get(key).copied();
                    assert_eq!(*value, truth, "stale {key} at step {step}");
                }
            }
        }
    }
    let sum = |of: fn(&Reader) -> u64| readers.iter().map(of).sum();
    (
        sum(|reader| reader.events),
        sum(|reader| reader.gaps),
        checks,
    )
}

#[test]
fn nothing_is_lost_without_a_word() {
    let (mut gaps, mut checks) = (0, 0);
    for seed in 1..=6 {
        let (events, some, checked) = simulate(seed, 4000);
        assert!(events > 1000, "{events} events");
        (gaps, checks) = (gaps + some, checks + checked);
    }
    assert!(gaps > 50 && checks > 200, "{gaps} gaps, {checks} checks");
}

#[test]
fn with_room_for_all_gaps_are_those_of_restarts() {
    let (_, many, _) = simulate(9, 300);
    let (_, few, _) = simulate(9, 16 << 20);
    assert!(few * 2 < many, "{few} and {many} gaps");
}

/// At the very edge of the history: the oldest event that is still there, and the one before.
#[test]
fn who_comes_back_at_the_edge_misses_nothing() {
    let events = Events::new(1);
    events.feed.keep(3000);
    events.begin_feed();
    for n in 0..300u64 {
        events.gone(By::default(), What::Delete, format!("key{n}").as_bytes(), n);
        events.feed.collect();
    }
    let last = events.feed.collect();
    assert_eq!(last, 300);
    let begin = |from: u64| {
        let epoch = events.feed.epoch();
        let from = format!("from={epoch:x}:{from}");
        let words = [&b"feed"[..], from.as_bytes()];
        let Ok(super::Watch::Feed(mut subscription)) = parse(words.into_iter()) else {
            panic!("known words");
        };
        let mut out = Vec::new();
        subscription.begin(&events.feed, last, 0, &mut out);
        assert!(!subscription.write(&events.feed, &mut out, usize::MAX));
        String::from_utf8(out).unwrap()
    };
    let oldest = (0..300).find(|&from| !begin(from).contains("GAP")).unwrap();
    assert!((200..299).contains(&oldest), "{oldest}");
    let at_the_edge = begin(oldest);
    let lines: Vec<&str> = at_the_edge.lines().collect();
    assert_eq!(lines.len() as u64, 2 + (300 - oldest));
    assert_eq!(
        lines[2],
        format!("1 {} delete upkeep key{oldest} {oldest} 0", oldest + 1)
    );
    let behind = begin(oldest - 1);
    let epoch = events.feed.epoch();
    assert_eq!(behind, format!("OK\r\nFEED {epoch:016x} 300\nGAP 300\n"));
    assert_eq!(begin(300), format!("OK\r\nFEED {epoch:016x} 300\n"));
    // From the future, or of another process.
    assert!(begin(301).contains("GAP 300"));
}

/// Fd4: whoever had seen all when recording ended, and comes back when it has begun again.
#[test]
fn what_nobody_recorded_is_a_gap() {
    let events = Events::new(1);
    let begin = |from: u64| {
        let from = format!("from={:x}:{from}", events.feed.epoch());
        let words = [&b"feed"[..], from.as_bytes()];
        let Ok(super::Watch::Feed(mut subscription)) = parse(words.into_iter()) else {
            panic!("known words");
        };
        let (mut out, last) = (Vec::new(), events.feed.collect());
        subscription.begin(&events.feed, last, 0, &mut out);
        out.ends_with(format!("GAP {last}\n").as_bytes())
    };
    events.begin_feed();
    events.deleted(By::default(), b"a", 1);
    assert!(!begin(1));
    events.end_feed();
    events.deleted(By::default(), b"a", 2);
    events.begin_feed();
    assert!(begin(1));
    let last = events.feed.collect();
    assert!(!begin(last));
}

/// Threads that tell while others collect and read: numbers without holes, each key's events in order.
#[test]
fn threads_tell_while_others_read() {
    let events = Events::new(3);
    events.begin_feed();
    const EACH: u64 = 20_000;
    let stripes: Vec<parking_lot::Mutex<u64>> =
        (0..5).map(|_| parking_lot::Mutex::default()).collect();
    std::thread::scope(|scope| {
        for thread in 0..3u16 {
            let (events, stripes) = (&events, &stripes);
            scope.spawn(move || {
                for n in 0..EACH {
                    let stripe = (n * 3 + u64::from(thread)) as usize % stripes.len();
                    let by = By {
                        ring: RingId(thread),
                        ..By::default()
                    };
                    let mut count = stripes[stripe].lock();
                    *count += 1;
                    events.gone(by, What::Delete, format!("k{stripe}").as_bytes(), *count);
                }
            });
        }
        let mut subscription = Subscription::default();
        let (mut out, mut seen, mut lines) = (Vec::new(), HashMap::new(), 0);
        subscription.begin(&events.feed, 0, 0, &mut out);
        out.clear();
        while lines < 3 * EACH {
            events.feed.collect();
            subscription.write(&events.feed, &mut out, 10_000);
            for line in std::str::from_utf8(&out).unwrap().lines() {
                lines += 1;
                let words: Vec<&str> = line.split(' ').collect();
                assert_eq!((words[0], words[1]), (&*lines.to_string(), words[0]));
                let count: u64 = words[5].parse().unwrap();
                let before = seen.insert(words[4].to_owned(), count).unwrap_or(0);
                assert_eq!(count, before + 1, "{line}");
            }
            out.clear();
        }
    });
    assert_eq!(events.feed.collect(), 3 * EACH);
}
