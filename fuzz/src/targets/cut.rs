//! One connection, the same bytes cut in two ways: the same replies, and no panic. The first byte chooses the options.
use crate::pieces;
use crate::server::{Client, server};

const LINES: [&str; 4] = [
    "-m 8 -t 1",
    "-m 8 -t 1 -C -o eviction=slru",
    "-m 8 -t 1 -M -o slab_chunk_max=4",
    "-m 8 -t 1 -n 48 -f 1.25 -I 64k -o slab_chunk_max=8,eviction=lru",
];

/// Replies that tell of time, of memory or of the process may differ between two servers.
fn tells_of_the_process(bytes: &[u8]) -> bool {
    let lower = bytes.to_ascii_lowercase();
    let has = |word: &[u8]| lower.windows(word.len()).any(|at| at == word);
    has(b"stat") || has(b"dump") || has(b"\x10") || has(b"debug") || has(b"watch")
}

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    if rest.len() < 2 || tells_of_the_process(rest) {
        return;
    }
    // The uniques are among what is compared.
    ketch::cache::place_keys_alike();
    let line = LINES[usize::from(*choice) % LINES.len()];
    let replies = |cut: bool| {
        let shared = server(line);
        let mut client = Client::default();
        if cut {
            for piece in pieces(rest) {
                client.send(piece);
                client.settle(&shared, 0);
            }
        } else {
            client.send(&rest[1..]);
            client.settle(&shared, 0);
        }
        (std::mem::take(&mut client.replies), client.closed)
    };
    let (whole, pieces) = (replies(false), replies(true));
    assert_eq!(
        (String::from_utf8_lossy(&whole.0), whole.1),
        (String::from_utf8_lossy(&pieces.0), pieces.1),
        "{line}"
    );
}
