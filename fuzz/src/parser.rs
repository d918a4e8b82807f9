//! What a parser of requests promises.

use protocol::{Parsed, Skip};

/// Walks `bytes` as a connection would, and asserts at every request: it takes at least one byte and none that did not
/// come, and every shorter prefix of it is incomplete or gives the same answer.
pub fn holds(bytes: &[u8], parse: impl Fn(&[u8]) -> Parsed<'_>) {
    let mut at = 0;
    // Each request is parsed once per prefix: long inputs would take their square.
    let bytes = &bytes[..bytes.len().min(4096)];
    while at < bytes.len() {
        let rest = &bytes[at..];
        let parsed = parse(rest);
        let consumed = match parsed {
            Parsed::Complete { consumed, .. } => consumed,
            Parsed::Invalid { consumed, skip, .. } => {
                consumed
                    + match skip {
                        Skip::None => 0,
                        Skip::Bytes(count) => {
                            usize::try_from(count).unwrap_or(usize::MAX - consumed)
                        }
                        Skip::Line => match rest[consumed..].iter().position(|b| *b == b'\n') {
                            Some(end) => end + 1,
                            None => return,
                        },
                        Skip::All => return,
                    }
            }
            Parsed::Incomplete | Parsed::HangUp => {
                earlier(rest, &parse, rest.len(), &parsed);
                return;
            }
        };
        assert!(consumed > 0, "nothing taken");
        let taken = match parsed {
            Parsed::Complete { consumed, .. } | Parsed::Invalid { consumed, .. } => consumed,
            _ => unreachable!("returned above"),
        };
        assert!(taken <= rest.len(), "more taken than came");
        earlier(rest, &parse, taken, &parsed);
        at = at.saturating_add(consumed);
    }
}

/// No prefix of `rest` says anything else than `parsed`, but that it is incomplete. A list of keys that is longer than a
/// line may come in pieces: its prefixes are requests of their own.
fn earlier<'b>(
    rest: &'b [u8],
    parse: &impl Fn(&'b [u8]) -> Parsed<'b>,
    end: usize,
    parsed: &Parsed<'b>,
) {
    for cut in 0..end {
        let sooner = parse(&rest[..cut]);
        if sooner == Parsed::Incomplete || sooner == *parsed {
            continue;
        }
        let long = cut > protocol::LINE_LEN_MAX;
        assert!(
            long,
            "{cut} of {end} bytes: {sooner:?}, and {parsed:?} with all of them"
        );
    }
}
