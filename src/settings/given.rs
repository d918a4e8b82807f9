//! From words to the options they give, in their order. The grammar is that of getopt_long:
//!
//! ```text
//!  -v  -d -vv  -dvv                      flags; letters share a word
//!  -m 64  -m64  "-m 64"  -m=64  -vm 64   a letter and its value, in the next word or in its own
//!  --memory-limit 64  --memory-limit=64  a name and its value; "--memory-limit 64" as one word, too
//!  --memory-l 64                         a name cut short, where only one begins so
//!  ""                                    nothing: a variable that was empty
//! ```

use std::path::PathBuf;

use super::extended::{EXTENDED, is_extended};
use super::nearest::nearest;
use super::opt::{Kind, Opt, not_built_reason};
use super::options::OPTIONS;
use super::values;
use super::{Settings, SettingsError};

/// Where words stand in a config file: its path and the line.
pub(super) type At = Option<(PathBuf, usize)>;

/// One option as it was given, on the command line or in the config file.
pub(super) struct Given {
    pub opt: &'static Opt,
    /// Empty for a flag, and for an extended option without `=`.
    pub value: String,
    /// As it stands in an error: the words as they were written.
    label: String,
    at: At,
    /// A value was handed over: to a flag, which takes none, or to an extended option.
    surplus: bool,
}

impl Given {
    /// `-l` as the environment gives it.
    pub fn listen_of_environment(value: String) -> Given {
        let opt = OPTIONS.iter().find(|opt| opt.long == "listen");
        Given {
            opt: opt.expect("the table has it"),
            label: format!("KETCH_LISTEN={value}"),
            value,
            at: None,
            surplus: false,
        }
    }

    pub fn is(&self, long: &str) -> bool {
        self.opt.long == long
    }

    /// Whether both are the same option.
    pub fn same(&self, other: &Given) -> bool {
        self.opt.long == other.opt.long
    }

    /// Whether giving the option twice means more of it, not another value.
    pub fn adds_up(&self) -> bool {
        self.is("listen") || self.is("verbose")
    }

    /// What is told of it if it counts as not given, as its value is empty: a variable that is not set.
    pub fn left_empty(&self) -> Option<String> {
        // `-o idle_timeout` without `=` has forgotten its value.
        let has_empty_value = self.value.is_empty() && (self.surplus || !is_extended(self.opt));
        let label = self.written().trim();
        (has_empty_value && self.opt.may_be_empty())
            .then(|| format!("{label}: an empty value, so it counts as not given"))
    }

    /// The option as it was written, without the comma that ended it in a list of `-o`: any other comma is of the value.
    fn written(&self) -> &str {
        if is_extended(self.opt) {
            self.label.trim_end_matches(',')
        } else {
            &self.label
        }
    }

    /// Says that a value has no effect, where one stands behind an option that takes none.
    fn note_surplus(&self, settings: &mut Settings) {
        if self.surplus {
            let label = self.written();
            let notice = format!("{label}: takes no value, and is on whatever it says");
            settings.notices.push(notice);
        }
    }

    pub fn apply(&self, settings: &mut Settings) -> Result<(), SettingsError> {
        match &self.opt.kind {
            Kind::Flag(apply) => {
                self.note_surplus(settings);
                apply(settings);
                Ok(())
            }
            Kind::Turn(turns) => {
                self.note_surplus(settings);
                for (knob, number) in *turns {
                    settings.knobs.set(*knob, *number);
                }
                Ok(())
            }
            Kind::Value { .. } | Kind::Knob(_) => {
                if let Err(reason) = self.set(settings, &self.value) {
                    self.set_beginning(settings)
                        .ok_or_else(|| self.error(reason + self.likely_slip()))?;
                }
                if self.opt.shown_only && self.value != self.opt.hint_and_default().1 {
                    let notice = format!("{}: {}", self.written(), self.opt.told());
                    settings.notices.push(notice);
                }
                Ok(())
            }
            Kind::Inert { why, .. } => {
                // Zero asks for what happens anyway.
                if self.value != "0" {
                    let label = self.written();
                    let notice = format!("{label}: accepted, no effect: {why}");
                    settings.notices.push(notice);
                }
                Ok(())
            }
            Kind::NotBuilt { what, .. } => Err(self.error(not_built_reason(what))),
        }
    }

    /// Sets what `value` says.
    fn set(&self, settings: &mut Settings, value: &str) -> Result<(), String> {
        match &self.opt.kind {
            Kind::Knob(knob) => {
                values::knob(knob.row(), value).map(|number| settings.knobs.set(*knob, number))
            }
            Kind::Value { set, .. } => set(settings, value),
            _ => Ok(()),
        }
    }

    /// Sets the number that a refused value begins with, where memcached reads over what follows it, and says so.
    fn set_beginning(&self, settings: &mut Settings) -> Option<()> {
        let is_there = !self.value.is_empty() || self.surplus || !is_extended(self.opt);
        if !is_there || !self.likely_slip().is_empty() {
            return None;
        }
        let number = self.opt.beginning()?.of(&self.value);
        let unsigned = self.value.strip_prefix('+').unwrap_or(&self.value);
        if unsigned.starts_with(|c: char| c.is_ascii_digit())
            && self.set(settings, unsigned).is_ok()
        {
            return Some(());
        }
        // Of 300g, 300 is not what was asked for.
        if values::has_unit(&self.value) {
            return None;
        }
        self.set(settings, number).ok()?;
        if self.value.trim_start_matches('+') != number {
            let label = self.written();
            let notice = format!("{label}: read as {number}, as memcached reads it");
            settings.notices.push(notice);
        }
        Some(())
    }

    /// What has probably happened, by the look of a value that is refused.
    fn likely_slip(&self) -> &'static str {
        if self.is_short_of_value() {
            "; the next option stands where the value should"
        } else if self.value.contains(" -") {
            "; each option must be a word of its own"
        } else {
            ""
        }
    }

    /// Whether the next option has become the value.
    fn is_short_of_value(&self) -> bool {
        let letter = self
            .value
            .strip_prefix('-')
            .and_then(|rest| rest.chars().next());
        letter.is_some_and(|letter| letter.is_ascii_alphabetic())
    }

    /// An error about this option.
    pub fn error(&self, reason: impl Into<String>) -> SettingsError {
        SettingsError {
            at: self.at.clone(),
            option: self.label.clone(),
            reason: reason.into(),
        }
    }
}

/// Finds the options in `words`, in the order given, with `-o` taken apart. `at` is where they stand in the config file.
pub(super) fn split(words: &[String], at: At) -> Result<Vec<Given>, SettingsError> {
    let mut splitter = Splitter {
        words: words.iter(),
        at,
        given: Vec::new(),
    };
    while let Some(word) = splitter.words.next() {
        splitter.take(word)?;
    }
    Ok(splitter.given)
}

struct Splitter<'w> {
    words: std::slice::Iter<'w, String>,
    at: At,
    given: Vec<Given>,
}

impl Splitter<'_> {
    fn take(&mut self, word: &str) -> Result<(), SettingsError> {
        match word.trim() {
            // Ends the options, so that what follows can be no option: it is told as such.
            "" | "--" => Ok(()),
            word if word.starts_with("--") => self.take_name(word),
            word if word.starts_with('-') && word.len() > 1 => self.take_letters(word),
            word => Err(self.refused(word, self.not_an_option(word))),
        }
    }

    /// `--NAME`, `--NAME=VALUE` or `--NAME VALUE`.
    fn take_name(&mut self, word: &str) -> Result<(), SettingsError> {
        let end = word.find(|c: char| c == '=' || c.is_whitespace());
        let (name, value) = match end {
            Some(end) => {
                let cut = word[end..].chars().next().map_or(0, char::len_utf8);
                (&word[2..end], Some(&word[end + cut..]))
            }
            None => (&word[2..], None),
        };
        let opt = by_name(name).map_err(|reason| self.refused(word, reason))?;
        match value {
            // memcached's only name whose value may be there or not: one more of it, whatever it says.
            Some(_) if opt.long == "verbose" => {
                self.given.push(Given {
                    opt,
                    value: String::new(),
                    label: word.to_owned(),
                    at: self.at.clone(),
                    surplus: true,
                });
                Ok(())
            }
            Some(_) if !opt.takes_value() => Err(self.refused(word, "takes no value")),
            Some(value) => self.add(opt, word.to_owned(), value),
            None => self.add_with_next(opt, word),
        }
    }

    /// `-LETTERS`, the last of which may have a value.
    fn take_letters(&mut self, word: &str) -> Result<(), SettingsError> {
        let name = word[1..].split(|c: char| c == '=' || c.is_whitespace());
        let name = name.into_iter().next().unwrap_or_default();
        // `-help` begins with a letter that prints the help.
        if OPTIONS.iter().any(|opt| opt.long == name && name != "help") {
            return Err(self.refused(word, format!("unknown option; did you mean --{name}?")));
        }
        for (at, letter) in word.char_indices().skip(1) {
            let rest = &word[at + letter.len_utf8()..];
            if letter.is_whitespace() {
                let reason = if rest.trim_start().starts_with('-') {
                    "each option must be a word of its own".to_owned()
                } else {
                    format!("{} takes no value", &word[..at])
                };
                return Err(self.refused(word, reason));
            }
            // `-v=2`, `-M64`: a letter with a value, which it does not take.
            if at > 1 && (letter == '=' || letter.is_ascii_digit()) {
                let flag = &word[..at];
                return Err(self.refused(word, format!("{flag} takes no value")));
            }
            let opt = by_letter(letter).map_err(|reason| self.refused(word, reason))?;
            if opt.takes_value() {
                return match rest {
                    "" => self.add_with_next(opt, word),
                    // `-m=64` is no other letter's way, and stands in many manifests.
                    value => {
                        let value = value.strip_prefix('=').unwrap_or(value);
                        self.add(opt, word.to_owned(), value)
                    }
                };
            }
            self.add(opt, word.to_owned(), "")?;
        }
        Ok(())
    }

    /// An option whose value, if it takes one, is the next word.
    fn add_with_next(&mut self, opt: &'static Opt, word: &str) -> Result<(), SettingsError> {
        if !opt.takes_value() {
            return self.add(opt, word.to_owned(), "");
        }
        match self.words.next() {
            Some(value) => self.add(opt, format!("{word} {value}"), value),
            None => Err(self.refused(word, "needs a value")),
        }
    }

    fn add(&mut self, opt: &'static Opt, label: String, value: &str) -> Result<(), SettingsError> {
        let (at, value) = (&self.at, value.trim());
        if opt.long != "extended" {
            self.given.push(Given {
                opt,
                value: value.to_owned(),
                label,
                at: at.clone(),
                surplus: false,
            });
            return Ok(());
        }
        let given = &mut self.given;
        let taken = split_list(value, |opt, label, value, surplus| {
            given.push(Given {
                opt,
                value,
                label,
                at: at.clone(),
                surplus,
            });
        });
        taken.map_err(|(option, reason)| self.refused(&option, reason))
    }

    /// Why a word that is no option stands here, most likely.
    fn not_an_option(&self, word: &str) -> String {
        let before = self.given.last();
        let slip = match before {
            _ if word.starts_with([
                '\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2212}',
            ]) =>
            {
                "; it begins with another sign than -".to_owned()
            }
            Some(before) if !before.opt.takes_value() && !is_extended(before.opt) => {
                format!("; {} takes no value", before.label)
            }
            Some(before) if before.is_short_of_value() => {
                format!("; {} stands where a value should", before.value)
            }
            Some(before) if before.is("listen") && !before.label.ends_with(',') => {
                "; addresses have commas between them".to_owned()
            }
            Some(before) if before.label.ends_with(',') => "; a blank after a comma?".to_owned(),
            _ => match nearest(word) {
                Some(name) => format!("; did you mean {name}?"),
                None => String::new(),
            },
        };
        format!("not an option{slip}")
    }

    fn refused(&self, option: &str, reason: impl Into<String>) -> SettingsError {
        SettingsError {
            at: self.at.clone(),
            option: option.to_owned(),
            reason: reason.into(),
        }
    }
}

fn by_letter(letter: char) -> Result<&'static Opt, String> {
    let of = |letter: char| {
        let mut found = OPTIONS.iter();
        found.find(|opt| opt.short.chars().eq([letter]))
    };
    of(letter).ok_or_else(|| {
        let other = match letter {
            'a'..='z' => letter.to_ascii_uppercase(),
            _ => letter.to_ascii_lowercase(),
        };
        match of(other) {
            Some(opt) => format!(
                "unknown option; did you mean -{} ({})?",
                opt.short, opt.long
            ),
            None => "unknown option".to_owned(),
        }
    })
}

/// The option with this name, or the only one that begins with it. What is short enough for memcached's names alone stays
/// so, whatever names were added here.
fn by_name(name: &str) -> Result<&'static Opt, String> {
    let name = name.replace('_', "-");
    if let Some(opt) = OPTIONS.iter().find(|opt| opt.long == name) {
        return Ok(opt);
    }
    for own in [false, true] {
        let begins = |opt: &&Opt| opt.long.starts_with(&name) && opt.is_own() == own;
        let found: Vec<_> = OPTIONS.iter().filter(begins).collect();
        match &found[..] {
            _ if name.is_empty() => {}
            [] => {}
            [opt] => return Ok(opt),
            several => {
                let names: Vec<_> = several
                    .iter()
                    .map(|opt| format!("--{}", opt.long))
                    .collect();
                return Err(format!("cut too short: {}", names.join(" or ")));
            }
        }
    }
    Err(match nearest(&name) {
        Some(name) => format!("unknown option; did you mean {name}?"),
        None => "unknown option".to_owned(),
    })
}

/// Hands each option of `list` to `found` as entry, label, value, and whether a flag came with a value. An unknown name
/// is an error, as label and reason.
fn split_list(
    list: &str,
    mut found: impl FnMut(&'static Opt, String, String, bool),
) -> Result<(), (String, String)> {
    // memcached reads over an empty place and a comma at the end.
    let mut items = list.split(',').map(str::trim).peekable();
    while let Some(item) = items.next() {
        if item.is_empty() {
            continue;
        }
        // The comma stays in sight where a blank behind it may have cut the list.
        let cut = items.peek().is_some_and(|next| next.is_empty());
        let label = format!("-o {item}{}", if cut { "," } else { "" });
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        match EXTENDED.iter().find(|opt| opt.long == name.trim_end()) {
            Some(opt) => found(opt, label, value.trim().to_owned(), item.contains('=')),
            None => {
                let reason = match nearest(name) {
                    _ if name.contains(char::is_whitespace) => {
                        "unknown option; options have commas between them".to_owned()
                    }
                    Some(name) => format!("unknown option; did you mean {name}?"),
                    None => "unknown option".to_owned(),
                };
                return Err((format!("-o {item}"), reason));
            }
        }
    }
    Ok(())
}
