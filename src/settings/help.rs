//! What `-h`, `-V` and `-i` print.

use std::fmt::Write;

use super::MEMCACHED_VERSION;
use super::extended::EXTENDED;
use super::opt::Opt;
use super::options::OPTIONS;

/// Column at which the explanations start.
const COLUMN: usize = 34;

/// `-V`, and the first line of `-h`. Tools read either for the version of memcached, to learn what a server can do.
pub(super) fn version() -> String {
    let own = env!("CARGO_PKG_VERSION");
    format!("ketch {own} (memcached {MEMCACHED_VERSION} compatible)\n")
}

/// `-i`.
pub(super) fn license() -> String {
    format!("{}\n{}", version(), include_str!("../../LICENSE"))
}

/// `-h`: every option that works, one a line, from the tables.
pub(super) fn text() -> String {
    let mut text = version();
    // Test suites look for a line that begins so.
    writeln!(
        text,
        "memcached {MEMCACHED_VERSION}'s protocols, options and stats, on a storage engine of its own.\n\n\
         usage: ketch [options]\n"
    )
    .expect("a String takes everything");
    for opt in OPTIONS {
        let short = if opt.short.is_empty() {
            "    ".to_owned()
        } else {
            format!("-{}, ", opt.short)
        };
        line(&mut text, opt, &format!("{short}--{}", opt.long));
    }
    text.push_str("\nextended options, -o NAME[=VALUE][,..]:\n");
    for opt in EXTENDED.iter() {
        line(&mut text, opt, opt.long);
    }
    for (title, rows) in [("environment", ENVIRONMENT), ("signals", SIGNALS)] {
        writeln!(text, "\n{title}:").expect("a String takes everything");
        for (name, what) in rows {
            let left = format!("  {name}");
            writeln!(text, "{left:<COLUMN$}{what}").expect("a String takes everything");
        }
    }
    text
}

/// The variables that are read, and what for.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "KETCH_LISTEN",
        "addresses to listen on where there is no -l",
    ),
    (
        "MEMCACHED_PORT_FILENAME",
        "write the ports that were bound to this file",
    ),
    (
        "MEMCACHED_SASL_PWDB",
        "users of -S, lines USER:PASSWORD[:REALM]",
    ),
    (
        "NOTIFY_SOCKET, LISTEN_FDS",
        "a service manager that wants to know when the server is ready, and the sockets it has bound for it",
    ),
];

/// The signals that are answered.
pub(super) const SIGNALS: &[(&str, &str)] = &[
    ("INT, TERM", "stop the server"),
    ("USR1", "stop it when the clients have finished"),
    (
        "HUP",
        "read users and certificates again, and open the log file anew",
    ),
];

fn line(text: &mut String, opt: &Opt, names: &str) {
    if opt.is_hidden() {
        return;
    }
    let (hint, default) = opt.hint_and_default();
    let equals = if hint.is_empty() { "" } else { "=" };
    let left = format!("  {names}{equals}{hint}");
    let gap = if left.len() < COLUMN { "" } else { " " };
    write!(text, "{left:<COLUMN$}{gap}{}", opt.told()).expect("a String takes everything");
    if !default.is_empty() {
        write!(text, " (default: {default})").expect("a String takes everything");
    }
    text.push('\n');
}
