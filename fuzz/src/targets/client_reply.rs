//! What a node may send to the client: the same replies however the bytes are cut, and memory only for what came.
use crate::pieces;
use ketch_client_core::reply::{Inbox, Reply};

/// The replies of bytes that come in `pieces`, and whether the link broke.
fn replies<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<(Reply, Option<u32>)>, bool) {
    let (mut inbox, mut replies) = (Inbox::default(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let room = inbox.space();
            assert!(!room.is_empty(), "no room for what comes");
            let n = room.len().min(piece.len());
            room[..n].copy_from_slice(&piece[..n]);
            inbox.filled(n);
            piece = &piece[n..];
            loop {
                match inbox.next_reply() {
                    Ok(Some(reply)) => replies.push((reply, inbox.tag())),
                    Ok(None) => break,
                    Err(_) => return (replies, true),
                }
            }
        }
    }
    (replies, false)
}

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((_, rest)) = bytes.split_first() else {
        return;
    };
    let cut = replies(pieces(bytes));
    let whole = replies(std::iter::once(rest));
    assert_eq!(format!("{cut:?}"), format!("{whole:?}"));
}
