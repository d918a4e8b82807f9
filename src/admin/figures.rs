//! The figures that `stats` shows, by group, for whoever writes them in another form.
//!
//! They come from the very report that answers `stats`, so that both say the same.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::report::{Key, Of, Report, Sink, Value};
use crate::state::Shared;

/// Names and values of one group, in the order `stats` shows them.
///
/// A scrape has some thousand of them, so that they share one text.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    text: String,
    /// Where in it each name ends, and its value behind it.
    ends: Vec<(usize, usize)>,
}

impl Group {
    fn add(&mut self, name: &str, value: Value<'_>) {
        self.text.push_str(name);
        let name_end = self.text.len();
        write!(self.text, "{value}").expect("a String takes it");
        self.ends.push((name_end, self.text.len()));
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.iter().find(|&(other, _)| other == name)?;
        Some(value)
    }

    /// The same as a number, 0 if there is none.
    pub fn number(&self, name: &str) -> u64 {
        self.get(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut begin = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let name = &self.text[begin..name_end];
            begin = end;
            (name, &self.text[name_end..end])
        })
    }
}

/// A report: what it says of the whole server, and of each class.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Of the whole server.
    pub server: Group,
    /// Of each class.
    pub classes: BTreeMap<u8, Group>,
}

impl Sink for Told {
    fn stat(&mut self, key: Key<'_>, value: Value<'_>) {
        let group = match key.of {
            Of::Items(class) | Of::Slab(class) => self.classes.entry(class).or_default(),
            Of::Server | Of::Conn(_) => &mut self.server,
        };
        group.add(key.name, value);
    }
}

/// All groups at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// `stats`.
    pub general: Group,
    /// `stats settings`.
    pub settings: Group,
    /// `stats items`.
    pub items: Told,
    /// `stats slabs`.
    pub slabs: Told,
    /// `stats restart`.
    pub restart: Group,
    /// `stats proxy`.
    pub proxy: Group,
}

impl Figures {
    /// Reads all of them.
    pub fn read(shared: &Shared) -> Self {
        let ctx = shared.ctx(shared.settings.threads);
        let told = |mut report: Report| {
            let mut told = Told::default();
            while !report.step(ctx, &mut told) {}
            told
        };
        Figures {
            general: told(Report::general()).server,
            settings: told(Report::settings()).server,
            items: told(Report::items()),
            slabs: told(Report::slabs()),
            restart: told(Report::restart()).server,
            proxy: told(Report::proxy()).server,
        }
    }
}
