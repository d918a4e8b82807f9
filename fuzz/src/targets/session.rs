//! Several clients at once over one small store that is full, with a clock that jumps, background work between any two
//! steps, replies that nobody takes and clients that leave in the middle of a value.
//!
//! Every value that is ever stored under a key is made of that key's letter or of digits. So whatever a reply holds of
//! another letter came from somewhere else: another item, a freed chunk, a buffer.
use crate::server::{Background, Client, server};

const LINES: [&str; 8] = [
    "-m 1 -I 512k -t 2",
    "-m 1 -I 512k -t 2 -o eviction=slru,temporary_ttl=20",
    "-m 1 -I 512k -t 2 -o eviction=lru,slab_chunk_max=2",
    "-m 1 -I 512k -t 2 -C -o eviction=lfu,slab_chunk_max=4",
    "-m 1 -I 512k -t 2 -M",
    "-m 1 -I 512k -t 2 -n 48 -f 1.25 -o eviction=fifo,slab_automove=2",
    "-m 1 -I 512k -t 2 -M -n 100 -f 2 -o slab_chunk_max=8",
    "-m 1 -I 512k -t 2 -o eviction=ttl,no_lru_crawler",
];
const CLIENTS: usize = 4;
const KEYS: usize = 6;
/// Bytes of values: numbers, small ones, the edges of chunks and chains, and large ones.
const SIZES: [usize; 10] = [1, 2, 40, 200, 1000, 2040, 4090, 8200, 33_000, 120_000];

/// Reads the choices of a run from the input; without any more, all are 0.
struct Choices<'b>(&'b [u8]);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                usize::from(*first)
            }
            None => 0,
        }
    }

    fn of(&mut self, count: usize) -> usize {
        self.next() % count
    }
}

fn letter(key: usize) -> u8 {
    b'a' + key as u8
}

/// A request about one of the keys, with its data block.
fn request(choices: &mut Choices) -> Vec<u8> {
    let key = choices.of(KEYS);
    let name = letter(key) as char;
    let ttl = [0, 0, 5, -1, 30][choices.of(5)];
    let quiet = ["", " noreply"][choices.of(2)];
    let cas = choices.of(40);
    let block = |head: String, choices: &mut Choices| {
        let len = SIZES[choices.of(SIZES.len())];
        let mut request = head.replace("LEN", &len.to_string()).into_bytes();
        request.resize(request.len() + len, letter(key));
        request.extend_from_slice(b"\r\n");
        request
    };
    match choices.of(24) {
        0..=4 => block(format!("set {name} 7 {ttl} LEN{quiet}\r\n"), choices),
        5 => block(format!("add {name} 7 {ttl} LEN{quiet}\r\n"), choices),
        6 => block(format!("replace {name} 7 {ttl} LEN{quiet}\r\n"), choices),
        7 | 8 => block(format!("append {name} 7 {ttl} LEN{quiet}\r\n"), choices),
        9 => block(format!("prepend {name} 7 {ttl} LEN{quiet}\r\n"), choices),
        10 => block(format!("cas {name} 7 {ttl} LEN {cas}{quiet}\r\n"), choices),
        11 => block(
            format!("ms {name} LEN T{} MA N9 I E{cas}\r\n", ttl.max(0)),
            choices,
        ),
        12 => format!("set {name} 1 {ttl} 3{quiet}\r\n998\r\n").into_bytes(),
        13 => format!("incr {name} {cas}{quiet}\r\n").into_bytes(),
        14 => format!("decr {name} {cas}{quiet}\r\n").into_bytes(),
        15 => format!("ma {name} N8 J3 D7 t v c\r\n").into_bytes(),
        16 => format!("delete {name}{quiet}\r\n").into_bytes(),
        17 => format!("md {name} {}\r\n", ["q", "I T9", "x", "C4"][choices.of(4)]).into_bytes(),
        18 => format!("touch {name} {ttl}{quiet}\r\n").into_bytes(),
        19 => format!("gat {ttl} {name} b\r\n").into_bytes(),
        20 => format!("mg {name} v k s t c f N7 R3\r\n").into_bytes(),
        21 => [
            "flush_all\r\n",
            "flush_all 2\r\n",
            "stats items\r\n",
            "stats slabs\r\n",
        ][choices.of(4)]
        .into(),
        22 => [
            "lru_crawler metadump all\r\n",
            "stats cachedump 5 9\r\n",
            "slabs reassign -1 4\r\n",
            "lru_crawler crawl all\r\n",
        ][choices.of(4)]
        .into(),
        _ => format!("gets {name} a c e\r\n").into_bytes(),
    }
}

/// Checks the values of `replies`: each is of its key's letter, or digits and blanks.
fn check(replies: &[u8]) {
    let mut rest = replies;
    while let Some(end) = rest.windows(2).position(|at| at == b"\r\n") {
        let (line, behind) = (&rest[..end], &rest[end + 2..]);
        let words: Vec<_> = line.split(|b| *b == b' ').collect();
        let (key, len) = match words[..] {
            [b"VALUE", key, _, len, ..] => (Some(key[0]), len),
            [b"VA", len, ref flags @ ..] => {
                let key = flags.iter().find_map(|flag| flag.strip_prefix(b"k"));
                (key.map(|key| key[0]), len)
            }
            _ => {
                rest = behind;
                continue;
            }
        };
        let len: usize = std::str::from_utf8(len)
            .expect("a length")
            .parse()
            .expect("a length");
        let Some(value) = behind.get(..len) else {
            return;
        };
        let own = |byte: &u8| Some(*byte) == key || byte.is_ascii_digit() || *byte == b' ';
        if key.is_some() {
            let stray = value.iter().position(|byte| !own(byte));
            assert!(
                stray.is_none(),
                "{:?}: {stray:?} of {len} is {:?}",
                line,
                value[stray.unwrap()]
            );
        } else {
            assert!(
                value
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ')
            );
        }
        let Some(after) = behind.get(len..) else {
            return;
        };
        assert!(
            after.len() < 2 || after.starts_with(b"\r\n"),
            "no end behind a value"
        );
        rest = after.get(2..).unwrap_or_default();
    }
}

/// The target.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let shared = server(LINES[choices.of(LINES.len())]);
    let mut background = Background::default();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::default()).collect();
    // What each client has still to send of its request.
    let mut pending: Vec<Vec<u8>> = vec![Vec::new(); CLIENTS];
    let mut steps = 0;
    while !choices.0.is_empty() && steps < 400 {
        steps += 1;
        let who = choices.of(CLIENTS);
        let worker = who % 2;
        match choices.of(16) {
            0..=5 => {
                if pending[who].is_empty() {
                    pending[who] = request(&mut choices);
                }
                let all = std::mem::take(&mut pending[who]);
                clients[who].send(&all);
            }
            6..=8 => {
                if pending[who].is_empty() {
                    pending[who] = request(&mut choices);
                }
                // A part of it, up to the middle of its value.
                let len = pending[who].len();
                let rest = pending[who].split_off(len.min(1 + choices.next() * len / 256));
                clients[who].send(&std::mem::replace(&mut pending[who], rest));
            }
            9 => clients[who].take([1, 100, 5000, usize::MAX][choices.of(4)]),
            10 => shared.clock.shift([1, 3, 40][choices.of(3)]),
            11 => background.step(&shared),
            12 => clients[who].give_way(&shared, worker),
            13 => {
                check(&clients[who].replies);
                (clients[who], pending[who]) = (Client::default(), Vec::new());
            }
            _ => {}
        }
        clients[who].turn(&shared, worker, 1 + choices.of(4) as u32);
    }
    for (who, client) in clients.iter_mut().enumerate() {
        if !pending[who].is_empty() {
            client.send(&std::mem::take(&mut pending[who]));
        }
        client.settle(&shared, who % 2);
        check(&client.replies);
    }
}
