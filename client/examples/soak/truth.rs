//! What one writer knows of its keys, so that each value it reads is right, old or foreign.

use ketch_testing::Rng;

/// A state that a key was brought to: a version of its value, a counter's number, or nothing.
pub type State = Option<u64>;

/// A key with one writer.
pub struct Truth {
    pub name: String,
    /// The state that was acknowledged last.
    sure: State,
    /// States that were asked for since and not acknowledged: each may have come about.
    maybe: Vec<State>,
    newest: u64,
    /// A read has missed it. What was evicted may come back with a log that is replayed.
    pub lapsed: bool,
}

impl Truth {
    pub fn new(name: String) -> Truth {
        Truth {
            name,
            sure: None,
            maybe: Vec::new(),
            newest: 0,
            lapsed: false,
        }
    }

    /// The next version.
    pub fn next(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// `state` is under way.
    pub fn asked(&mut self, state: State) {
        self.maybe.push(state);
    }

    /// The server says that the key is in `state`.
    pub fn is(&mut self, state: State) {
        self.sure = state;
        self.maybe.clear();
        self.lapsed = state.is_none();
    }

    /// States that the key may be in. It may always have been evicted.
    pub fn possible(&self) -> impl Iterator<Item = u64> + '_ {
        self.maybe
            .iter()
            .chain([&self.sure])
            .filter_map(|state| *state)
    }

    /// Whether a read may give this value; the reason if not.
    pub fn allows(&self, value: &[u8]) -> Result<(), String> {
        let version = version_of(&self.name, value)?;
        if self.possible().any(|known| known == version) {
            return Ok(());
        }
        let what = if version > self.newest {
            "never written"
        } else {
            "old"
        };
        Err(format!(
            "{}: version {version} is {what}; {:?} was acknowledged, {:?} asked for since",
            self.name, self.sure, self.maybe
        ))
    }
}

/// Most values are small, some fill many chunks.
fn len_of(key: &str, version: u64) -> usize {
    let mut rng = Rng::new(version ^ key.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)));
    let most = match rng.below(200) {
        0 => 400_000,
        1..=10 => 20_000,
        _ => 1500,
    };
    rng.below(most) as usize
}

/// The value of a version: key and version, then bytes that follow from them.
pub fn value(key: &str, version: u64) -> Vec<u8> {
    let mut bytes = format!("{key} {version} ").into_bytes();
    let len = bytes.len() + len_of(key, version);
    let stamp = format!("{version:x}.");
    bytes.extend(stamp.bytes().cycle().take(len - bytes.len()));
    bytes
}

/// The version that `bytes` are, to the last byte.
fn version_of(key: &str, bytes: &[u8]) -> Result<u64, String> {
    let shown = || bytes[..bytes.len().min(60)].escape_ascii().to_string();
    let rest = bytes
        .strip_prefix(key.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .ok_or_else(|| format!("{key}: foreign value {}", shown()))?;
    let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(0);
    let version = std::str::from_utf8(&rest[..end])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("{key}: torn value {}", shown()))?;
    if value(key, version) == bytes {
        Ok(version)
    } else {
        Err(format!(
            "{key}: bytes of version {version} are not what was stored"
        ))
    }
}
