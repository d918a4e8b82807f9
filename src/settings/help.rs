//! What `-h`, `-V` and `-i` print.

use std::fmt::Write;

use super::extended::EXTENDED;
use super::options::{Kind, OPTIONS, Opt};

/// Column at which the explanations start.
const COLUMN: usize = 34;

/// `-V`.
pub(super) fn version() -> String {
    format!("ketch {}\n", env!("CARGO_PKG_VERSION"))
}

/// `-i`.
pub(super) fn license() -> String {
    format!("{}\n{}", version(), include_str!("../../LICENSE"))
}

/// `-h`: every option that works, one a line, from the tables.
pub(super) fn text() -> String {
    let mut text = version();
    text.push_str(
        "A cache server that speaks memcached's protocols.\n\nusage: ketch [options]\n\n",
    );
    for opt in OPTIONS {
        let short = if opt.short.is_empty() {
            "    ".to_owned()
        } else {
            format!("-{}, ", opt.short)
        };
        line(&mut text, opt, &format!("{short}--{}", opt.long));
    }
    text.push_str("\nextended options, -o NAME[=VALUE][,..]:\n");
    for opt in EXTENDED {
        line(&mut text, opt, opt.long);
    }
    text.push_str(
        "\nenvironment:\n  MEMCACHED_PORT_FILENAME         write the ports that were bound to this file\n\
         \x20 MEMCACHED_SASL_PWDB             users of -S, lines USER:PASSWORD[:REALM]\n\
         \nsignals: INT and TERM stop the server, USR1 lets clients finish first, HUP reads users and certificates again.\n",
    );
    text
}

fn line(text: &mut String, opt: &Opt, names: &str) {
    if opt.help.is_empty() {
        return;
    }
    let (left, default) = match opt.kind {
        Kind::Value { hint, default, .. } => (format!("  {names}={hint}"), default),
        _ => (format!("  {names}"), ""),
    };
    write!(
        text,
        "{left:<COLUMN$}{}{}",
        if left.len() < COLUMN { "" } else { " " },
        opt.help
    )
    .expect("a String takes everything");
    if !default.is_empty() {
        write!(text, " (default: {default})").expect("a String takes everything");
    }
    text.push('\n');
}
