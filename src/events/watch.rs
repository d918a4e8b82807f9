//! What `watch` asks for: the words of the command, and how many may watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Audience;
use super::subscription::{Form, Subscription};

/// Watchers of lines, as many as memcached allows.
const WATCHERS_MAX: usize = 20;
/// Readers of the feed: each costs a buffer.
const READERS_MAX: usize = 1000;
/// Heartbeats, in milliseconds.
const HEARTBEATS_MS: std::ops::RangeInclusive<u32> = 10..=3_600_000;

/// Which sights a watcher gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SightFilter {
    /// Of these kinds.
    pub kinds: Audience,
    /// About keys that begin so, if they are about keys.
    pub prefix: Box<[u8]>,
}

impl SightFilter {
    /// Whether it gets this one.
    pub fn wants(&self, kind: Audience, key: Option<&[u8]>) -> bool {
        self.kinds.has(kind) && key.is_none_or(|key| key.starts_with(&self.prefix))
    }
}

/// What is watched.
#[derive(Debug)]
pub enum Watch {
    /// Lines as memcached writes them.
    Sights(SightFilter),
    /// The feed.
    Feed(Box<Subscription>),
}

impl Watch {
    /// Whom this lets listen.
    pub fn audience(&self) -> Audience {
        match self {
            Watch::Sights(filter) => filter.kinds,
            Watch::Feed(_) => Audience::FEED,
        }
    }
}

/// Why a watch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It does not know one of the words.
    Word,
    /// A value behind a `=` is none.
    Value,
    /// There are too many already.
    TooMany,
}

/// What the words behind `watch` ask for. Kinds may be shortened, as in memcached: `watch f` is `watch fetchers`.
pub fn parse<'w>(words: impl Iterator<Item = &'w [u8]>) -> Result<Watch, Refusal> {
    const KINDS: [(&[u8], Audience); 10] = [
        (b"rawcmds", Audience::RAWCMDS),
        (b"evictions", Audience::EVICTIONS),
        (b"fetchers", Audience::FETCHERS),
        (b"mutations", Audience::MUTATIONS),
        (b"sysevents", Audience::SYSEVENTS),
        (b"connevents", Audience::CONNEVENTS),
        (b"proxyreqs", Audience::PROXYREQS),
        (b"proxyevents", Audience::PROXYEVENTS),
        (b"proxyuser", Audience::PROXYUSER),
        (b"deletions", Audience::DELETIONS),
    ];
    let mut words = words.peekable();
    if words.next_if(|word| *word == b"feed").is_some() {
        return parse_feed(words).map(|feed| Watch::Feed(Box::new(feed)));
    }
    let mut filter = SightFilter {
        kinds: Audience::default(),
        prefix: Box::default(),
    };
    for word in words {
        if let Some(prefix) = word.strip_prefix(b"prefix=") {
            filter.prefix = decoded(prefix).ok_or(Refusal::Value)?;
            continue;
        }
        let kind = KINDS.iter().find(|(name, _)| name.starts_with(word));
        filter.kinds = filter.kinds.with(kind.ok_or(Refusal::Word)?.1);
    }
    if filter.kinds == Audience::default() {
        filter.kinds = Audience::FETCHERS;
    }
    Ok(Watch::Sights(filter))
}

fn parse_feed<'w>(words: impl Iterator<Item = &'w [u8]>) -> Result<Subscription, Refusal> {
    let mut feed = Subscription::default();
    for word in words {
        let equals = word.iter().position(|&byte| byte == b'=');
        let (name, value) = word.split_at(equals.ok_or(Refusal::Word)?);
        let value = &value[1..];
        match name {
            b"prefix" => feed.prefix = decoded(value).ok_or(Refusal::Value)?,
            b"form" => {
                feed.form = match value {
                    b"text" => Form::Text,
                    b"hash" => Form::Hash,
                    _ => return Err(Refusal::Value),
                };
            }
            b"clock" if value == b"ms" => feed.tells_time = true,
            b"clock" => return Err(Refusal::Value),
            b"from" => feed.from = Some(position(value).ok_or(Refusal::Value)?),
            b"heartbeat" => {
                let ms = number(value).and_then(|ms| u32::try_from(ms).ok());
                let ms = ms.filter(|ms| HEARTBEATS_MS.contains(ms));
                feed.heartbeat_ms = ms.ok_or(Refusal::Value)?;
            }
            _ => return Err(Refusal::Word),
        }
    }
    Ok(feed)
}

/// `EPOCH:SEQ`, the one in hex and the other not.
fn position(text: &[u8]) -> Option<(u64, u64)> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let epoch = &text[..colon];
    if !(1..=16).contains(&epoch.len()) || !epoch.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let epoch = u64::from_str_radix(std::str::from_utf8(epoch).ok()?, 16).ok()?;
    Some((epoch, number(&text[colon + 1..])?))
}

fn number(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A prefix of keys, in which `%XX` is a byte.
fn decoded(text: &[u8]) -> Option<Box<[u8]>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        bytes.push((digit(0)? << 4 | digit(1)?) as u8);
        rest = behind;
    }
    Some(bytes.into())
}

/// How many watch.
#[derive(Debug, Default)]
pub struct Places {
    watchers: Arc<AtomicUsize>,
    readers: Arc<AtomicUsize>,
}

/// A place among them, given back when it is dropped.
#[derive(Debug)]
pub struct Taken(Arc<AtomicUsize>);

impl Places {
    /// Takes a place for this watch.
    pub fn take(&self, watch: &Watch) -> Result<Taken, Refusal> {
        let (count, most) = match watch {
            Watch::Sights(_) => (&self.watchers, WATCHERS_MAX),
            Watch::Feed(_) => (&self.readers, READERS_MAX),
        };
        let taken = count.fetch_update(Relaxed, Relaxed, |taken| {
            (taken < most).then_some(taken + 1)
        });
        taken
            .map(|_| Taken(count.clone()))
            .map_err(|_| Refusal::TooMany)
    }

    /// Watchers of lines, and readers of the feed.
    pub fn taken(&self) -> (usize, usize) {
        (self.watchers.load(Relaxed), self.readers.load(Relaxed))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
