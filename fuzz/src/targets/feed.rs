//! What a node may send to a reader of its feed: the same events however the bytes are cut, no change behind a hole, and nothing
//! behind the end.
use std::time::Instant;

use crate::pieces;
use ketch_client_core::feed::{Ask, Event, Form, Reader};

/// The events of bytes that come in `pieces`.
fn events<'p>(ask: Ask, pieces: impl Iterator<Item = &'p [u8]>, now: Instant) -> Vec<String> {
    let (mut reader, mut events) = (Reader::new(ask, None, now), Vec::new());
    let (mut seq, mut is_over) = (None, false);
    for mut piece in pieces {
        while !piece.is_empty() {
            let room = reader.space();
            assert!(!room.is_empty() || is_over, "no room for what comes");
            let n = room.len().min(piece.len());
            room[..n].copy_from_slice(&piece[..n]);
            reader.filled(n);
            piece = &piece[n..];
            while let Some(event) = reader.next(now) {
                assert!(!is_over, "{event:?} behind the end");
                match &event {
                    Event::Began(place) => seq = Some(place.seq),
                    Event::Change(change) => {
                        assert!(seq < Some(change.seq), "numbers grow");
                        seq = Some(change.seq);
                    }
                    Event::Beat(place) => seq = Some(place.seq),
                    Event::Lost(why) => is_over = why.is_over(),
                }
                events.push(format!("{event:?}"));
                if !is_over {
                    seq = reader.place().map(|place| place.seq);
                }
            }
            if is_over {
                return events;
            }
        }
    }
    events
}

/// The target. The first byte says how the rest is cut, and what is asked.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let mut ask = Ask::default();
    if first & 1 != 0 {
        ask = ask.prefix("p");
    }
    if first & 2 != 0 {
        ask = ask.form(Form::Hash);
    }
    if first & 4 != 0 {
        ask = ask.from("a1:7".parse().ok());
    }
    let now = Instant::now();
    let cut = events(ask.clone(), pieces(bytes), now);
    let whole = events(ask, std::iter::once(rest), now);
    assert_eq!(cut, whole);
}
