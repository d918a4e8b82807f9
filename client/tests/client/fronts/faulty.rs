//! What a node or a proxy adds, loses, repeats or delays never becomes another key's value.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ketch_client::{Cas, ClientOptions, Item, Node, Result};

use super::Client;
use ketch_testing::{KINDS, Server, wait_until};

/// SplitMix64.
fn random(state: &AtomicU64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What comes out of nowhere.
const STRAY: [&[u8]; 14] = [
    b"EN\r\n",
    b"HD\r\n",
    b"NF\r\n",
    b"NS\r\n",
    b"MN\r\n",
    b"END\r\n",
    b"OK\r\n",
    b"STORED\r\n",
    b"VA 5 f0\r\nstray\r\n",
    b"VA 5 f0 O7\r\nstray\r\n",
    b"VALUE k1 0 5\r\nstray\r\n",
    b"STAT pid 1\r\n",
    b"SERVER_ERROR out of memory\r\n",
    b"hello\r\n",
];

/// A way to a server that spoils one in so many of the pieces in which replies come.
struct Spoiler {
    port: u16,
    one_in: Arc<AtomicU64>,
}

impl Spoiler {
    fn before(server: &Server, seed: u64) -> Spoiler {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let (one_in, to) = (Arc::new(AtomicU64::new(0)), server.port());
        let (spoils, chance) = (one_in.clone(), Arc::new(AtomicU64::new(seed)));
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.expect("a connection");
                let mut server = TcpStream::connect(("127.0.0.1", to)).expect("the server is up");
                let back = (server.try_clone(), client.try_clone());
                let (spoils, chance) = (spoils.clone(), chance.clone());
                thread::spawn(move || {
                    if let (Ok(from), Ok(to)) = back {
                        spoil(from, to, &spoils, &chance);
                    }
                });
                thread::spawn(move || {
                    let _ = std::io::copy(&mut client, &mut server);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        Spoiler { port, one_in }
    }
}

fn spoil(mut from: TcpStream, mut to: TcpStream, one_in: &AtomicU64, chance: &AtomicU64) {
    let (mut bytes, mut before, mut held) = (vec![0; 65_536], Vec::new(), Vec::new());
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let piece = &bytes[..count];
        let one_in = one_in.load(Ordering::Relaxed);
        let mut out = std::mem::take(&mut held);
        let spoilt = one_in > 0 && random(chance).is_multiple_of(one_in);
        match spoilt.then(|| random(chance) % 6) {
            None => out.extend_from_slice(piece),
            Some(0 | 1) => {
                out.extend_from_slice(STRAY[random(chance) as usize % STRAY.len()]);
                out.extend_from_slice(piece);
            }
            Some(2) => {
                out.extend_from_slice(piece);
                out.extend_from_slice(piece);
            }
            // The reply before once more, in place of this one: from here on, all come one late.
            Some(3) => {
                out.extend_from_slice(&before);
                held = piece.to_vec();
            }
            Some(4) => {
                out.extend_from_slice(piece);
                out.extend_from_slice(STRAY[random(chance) as usize % STRAY.len()]);
            }
            // Lost.
            Some(_) => {}
        }
        before = piece.to_vec();
        if to.write_all(&out).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// True if it is another key's value.
fn is_wrong(key: &str, found: &Result<Option<Item>>) -> bool {
    let Ok(Some(Item { value, .. })) = found else {
        return false;
    };
    let text = String::from_utf8_lossy(value);
    let own = text.split(':').next() == Some(key);
    if !own {
        eprintln!("{key}: {text:.40}");
    }
    !own
}

/// Everything a client does with values that tell their keys; how many were wrong, and how many were right.
fn use_all(client: &Client, chance: &AtomicU64, rounds: usize) -> (usize, usize) {
    let (mut wrong, mut right) = (0, 0);
    for round in 0..rounds {
        let key = format!("k{}", random(chance) % 40);
        let value = format!("{key}:{}", "x".repeat(random(chance) as usize % 300));
        let mut see = |key: &str, found: &Result<Option<Item>>| {
            right += usize::from(matches!(found, Ok(Some(_))));
            wrong += usize::from(is_wrong(key, found));
        };
        match round % 10 {
            0 => {
                let _ = client.set(&key, &value, None);
            }
            1 => {
                let keys: Vec<String> = (0..12).map(|step| format!("k{}", step * 3)).collect();
                for (key, found) in keys.iter().zip(client.get_multi(&keys)) {
                    see(key, &found);
                }
            }
            2 => {
                let entries = (0..5).map(|step| {
                    let key = format!("k{}", (round + step) % 40);
                    let value = format!("{key}:many");
                    (key, value)
                });
                let entries: Vec<_> = entries.collect();
                let _ = client.set_multi(entries.iter().map(|(key, value)| (key, value)), None);
            }
            3 => {
                if let Ok(Some((item, unique))) = client.gets(&key) {
                    see(&key, &Ok(Some(item)));
                    let stored = client.cas(&key, &value, unique, None);
                    assert!(!matches!(stored, Ok(Cas::Missing)) || round > 0);
                }
            }
            4 => {
                let _ = client.add(&key, &value, None);
            }
            5 => see(&key, &client.get_and_touch(&key, Duration::from_secs(60))),
            6 => {
                // Counters are by themselves: a number that is none of theirs is another's.
                let counter = format!("n{}", random(chance) % 3);
                let base = 1_000_000 * (1 + counter.as_bytes()[1] as u64);
                if let Ok(number) = client.incr_or_create(&counter, 1, base, None) {
                    let own = (base..base + 1_000_000).contains(&number);
                    wrong += usize::from(!own);
                }
            }
            7 => {
                let _ = client.delete_multi(&[&key, "other"]);
                for (_, stats) in client.stats("") {
                    if let Ok(stats) = stats {
                        wrong += usize::from(stats.iter().any(|(name, _)| name == "stray"));
                    }
                }
            }
            _ => see(&key, &client.get(&key)),
        }
    }
    (wrong, right)
}

#[test]
fn whatever_comes_in_between_no_value_is_anothers() {
    for (kind, seed) in KINDS.into_iter().zip(1..) {
        let server = kind.start();
        let spoiler = Spoiler::before(&server, seed);
        let ms = Duration::from_millis;
        // What is lost is found out by time alone.
        let options = ClientOptions::default().attempt_timeout(ms(60)).retries(1);
        let options = options.pool_connections_max(3).eject_after(u32::MAX);
        let client = Client::new([Node::new("127.0.0.1", spoiler.port)], options);
        let chance = Arc::new(AtomicU64::new(seed));
        let fill = |client: &Client| {
            for at in 0..40 {
                let key = format!("k{at}");
                wait_until("it is stored", || {
                    client.set(&key, format!("{key}:first"), None).is_ok()
                });
            }
        };
        fill(&client);
        spoiler.one_in.store(12, Ordering::Relaxed);
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (client, chance) = (client.clone(), chance.clone());
                thread::spawn(move || use_all(&client, &chance, 400))
            })
            .collect();
        let (mut wrong, mut right) = (0, 0);
        for worker in workers {
            let (w, r) = worker.join().expect("it does not panic");
            (wrong, right) = (wrong + w, right + r);
        }
        assert_eq!(wrong, 0, "{kind:?}, beside {right} right ones");
        assert!(right > 300, "{kind:?}: {right} right ones only");
        // And all is well as soon as it stops.
        spoiler.one_in.store(0, Ordering::Relaxed);
        fill(&client);
        let (wrong, right) = use_all(&client, &chance, 200);
        assert_eq!(wrong, 0, "{kind:?}");
        assert!(right > 50, "{kind:?}: {right}");
    }
}
