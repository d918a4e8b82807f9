//! The option table as pages: the manual, the example of a config file, and completion for shells.
//!
//! `ketch --print PAGE` prints one; what is written of an option stands in the table alone. The layout below says in which
//! section an option stands, and a test that each stands in one. `memcached.conf.example` is the printed page, kept in the
//! repository for its readers; a test holds the two to each other.

use std::fmt::Write;

use super::extended::{EXTENDED, is_extended};
use super::help::{ENVIRONMENT, SIGNALS};
use super::opt::{self, Opt};
use super::options::OPTIONS;
use crate::knobs::Knob;

/// The names of the pages.
pub(super) const PAGES: [&str; 5] = ["man", "conf", "bash", "zsh", "fish"];

/// The page of that name.
pub(super) fn page(name: &str) -> Option<String> {
    match name {
        "man" => Some(man()),
        "conf" => Some(conf()),
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// Options that end the start, or name the file, and so do not stand in it.
pub(super) const LINE_ALONE: [&str; 5] = ["config", "extended", "help", "license", "version"];

/// The sections, by the names of their options. Those of a knob stand before them in the section that its row names.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    (
        "Where to listen",
        &[
            "port",
            "udp-port",
            "listen",
            "unix-socket",
            "unix-mask",
            "protocol",
            "listen-backlog",
        ],
    ),
    (
        "Connections",
        &[
            "conn-limit",
            "maxconns_fast",
            "no_maxconns_fast",
            "idle_timeout",
            "body_timeout",
            "read_buf_mem_limit",
        ],
    ),
    (
        "TLS",
        &[
            "enable-ssl",
            "ssl_chain_cert",
            "ssl_key",
            "ssl_keyformat",
            "ssl_verify_mode",
            "ssl_ca_cert",
            "ssl_min_version",
            "ssl_ciphers",
            "ssl_session_cache",
            "ssl_wbuf_size",
        ],
    ),
    ("Threads", &["threads", "max-reqs-per-event"]),
    (
        "Memory",
        &[
            "memory-limit",
            "memory-file",
            "max-item-size",
            "slab-growth-factor",
            "slab-min-size",
            "slab_chunk_max",
            "no_chunked_items",
            "slab_sizes",
            "enable-largepages",
            "lock-memory",
            "disable-evictions",
            "disable-cas",
        ],
    ),
    ("Pages between slab classes", &[]),
    (
        "The table",
        &["hashpower", "no_hashexpand", "hash_algorithm"],
    ),
    ("LRU", &["tail_repair_time"]),
    (
        "Restart and crash",
        &[
            "takeover",
            "snapshot",
            "snapshot_interval",
            "snapshot_rate",
            "snapshot_compress",
            "log",
            "log_sync",
        ],
    ),
    ("Login", &["auth-file", "enable-sasl"]),
    ("HTTP", &["http", "http-token-file", "http-tls"]),
    (
        "Commands",
        &[
            "enable-shutdown",
            "disable-flush-all",
            "disable-dumping",
            "cluster_config",
            "register",
            "node_name",
            "node_address",
            "node_zone",
            "node_weight",
            "node_lease",
            "leave_share",
            "proxy_config",
            "disable-watch",
            "prefix-delimiter",
            "track_sizes",
            "watcher_logbuf_size",
            "worker_logbuf_size",
            "feed_ring",
        ],
    ),
    (
        "The process",
        &[
            "daemon",
            "pidfile",
            "user",
            "verbose",
            "logfile",
            "log-format",
            "enable-coredumps",
        ],
    ),
    (
        "Accepted for memcached's sake",
        &[
            "modern",
            "no_modern",
            "inline_ascii_resp",
            "no_inline_ascii_resp",
            "resp_obj_mem_limit",
            "relaxed_privileges",
            "drop_privileges",
            "sock_cookie_id",
            "napi-ids",
            "ssl_kernel_tls",
        ],
    ),
];

/// The options of a section.
fn options_of(title: &str, names: &[&str]) -> Vec<&'static Opt> {
    let knobs = Knob::ALL
        .into_iter()
        .filter(|knob| knob.row().section == title);
    let knobs = knobs.flat_map(opt::of_knob).map(|opt| find(opt.long));
    knobs.chain(names.iter().map(|long| find(long))).collect()
}

fn find(long: &str) -> &'static Opt {
    let mut all = OPTIONS.iter().chain(EXTENDED.iter());
    all.find(|opt| opt.long == long)
        .expect("the layout names options of the table")
}

/// What there is to say of an option, in sentences.
fn sentences(opt: &Opt) -> String {
    let told = opt.told();
    let first = told.chars().next().map_or(0, char::len_utf8);
    let mut text = format!("{}{}", told[..first].to_uppercase(), &told[first..]);
    text.push('.');
    if !opt.more.is_empty() {
        text.push(' ');
        text.push_str(opt.more);
    }
    text
}

/// An example of an option, as it stands in a config file.
fn written(opt: &Opt) -> String {
    let (_, default) = opt.hint_and_default();
    let value = if opt.example.is_empty() {
        default
    } else {
        opt.example
    };
    let (dashes, joint) = match (is_extended(opt), opt.short) {
        (true, _) => (format!("-o {}", opt.long), "="),
        (false, "") => (format!("--{}", opt.long), " "),
        (false, short) => (format!("-{short}"), " "),
    };
    match value {
        "" => dashes,
        value => format!("{dashes}{joint}{value}"),
    }
}

/// `memcached.conf.example`.
pub(super) fn conf() -> String {
    const WIDTH: usize = 80;
    let mut text = "# Options for ketch, one a line, as on the command line. Use it with\n#\n\
        #   ketch --config /etc/ketch.conf\n#\n\
        # What the command line says wins over this file. Lines that begin with \"#-\" are\n\
        # options: take away the \"#\" and change the value. Where an option has a default,\n\
        # it is the value shown. Sizes may have k, m or g behind the number.\n"
        .to_owned();
    for (title, options) in SECTIONS {
        let head = format!("# --- {title} ");
        write!(text, "\n{head:-<WIDTH$}\n\n").expect("a String takes everything");
        for opt in options_of(title, options) {
            let mut line = "#".to_owned();
            for word in sentences(opt).split(' ') {
                if line.len() + 1 + word.len() > WIDTH {
                    text.push_str(&line);
                    text.push('\n');
                    line.replace_range(1.., "");
                }
                line.push(' ');
                line.push_str(word);
            }
            writeln!(text, "{line}\n#{}", written(opt)).expect("a String takes everything");
        }
    }
    text
}

/// `ketch.1`.
fn man() -> String {
    let mut text = format!(
        ".TH KETCH 1 \"\" \"ketch {}\" \"User Commands\"\n.SH NAME\nketch \\- a cache server that speaks memcached\\(aqs \
         protocols\n.SH SYNOPSIS\n.B ketch\n.RI [ options ]\n.SH DESCRIPTION\nKetch keeps items in memory for clients of \
         memcached. It takes memcached\\(aqs options.\nA value stands in the next word or in the option\\(aqs own; names may be \
         cut short where only one\nbegins so. Sizes may have k, m or g behind the number.\n.SH OPTIONS\n",
        env!("CARGO_PKG_VERSION")
    );
    let sections = SECTIONS
        .iter()
        .copied()
        .chain([("Others", &LINE_ALONE[..])]);
    for (title, options) in sections {
        writeln!(text, ".SS {}", roff(title)).expect("a String takes everything");
        for opt in options_of(title, options) {
            let (hint, default) = opt.hint_and_default();
            let value = |joint: &str| match hint {
                "" => String::new(),
                hint => format!("{joint}\\fI{}\\fR", roff(hint)),
            };
            let names = match (is_extended(opt), opt.short) {
                (true, _) => format!("\\fB\\-o {}\\fR{}", roff(opt.long), value("=")),
                (false, "") => format!("\\fB\\-\\-{}\\fR{}", roff(opt.long), value("=")),
                (false, short) => format!(
                    "\\fB\\-{short}\\fR{}, \\fB\\-\\-{}\\fR{}",
                    value(" "),
                    roff(opt.long),
                    value("=")
                ),
            };
            writeln!(text, ".TP\n{names}\n{}", roff(&sentences(opt)))
                .expect("a String takes everything");
            if !default.is_empty() {
                writeln!(text, "Default: {}.", roff(default)).expect("a String takes everything");
            }
        }
    }
    for (title, rows) in [("ENVIRONMENT", ENVIRONMENT), ("SIGNALS", SIGNALS)] {
        writeln!(text, ".SH {title}").expect("a String takes everything");
        for (name, what) in rows {
            writeln!(text, ".TP\n.B {}\n{}", roff(name), roff(what))
                .expect("a String takes everything");
        }
    }
    text.push_str(
        ".SH EXIT STATUS\n0 after a signal or a printed text, 64 for options that are refused, 71 when the system \
         refuses.\n.SH SEE ALSO\n.BR ketchctl (1),\n.BR memcached (1)\n",
    );
    text
}

/// Text as troff reads it.
fn roff(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq");
    // A line that begins with a dot would be a command.
    match text.strip_prefix('.') {
        Some(rest) => format!("\\&.{rest}"),
        None => text,
    }
}

/// The options that a page for people shows.
fn shown(table: &'static [Opt]) -> impl Iterator<Item = &'static Opt> {
    table.iter().filter(|opt| !opt.is_hidden())
}

/// Whether the value of an option is a file.
fn is_file(opt: &Opt) -> bool {
    opt.hint_and_default().0 == "FILE"
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

/// Completion for bash.
fn bash() -> String {
    let dashed = |opt: &Opt| {
        let long = format!("--{}", opt.long);
        match opt.short {
            "" => long,
            short => format!("-{short} {long}"),
        }
    };
    let alternatives = |wanted: &dyn Fn(&Opt) -> bool| {
        let names = shown(OPTIONS).filter(|opt| wanted(opt)).map(dashed);
        joined(names).replace(' ', "|")
    };
    let options = joined(shown(OPTIONS).map(dashed));
    let extended = joined(shown(&EXTENDED).map(|opt| {
        let equals = if opt.takes_value() { "=" } else { "" };
        format!("{}{equals}", opt.long)
    }));
    let files = alternatives(&is_file);
    let values = alternatives(&|opt| opt.takes_value() && !is_file(opt) && opt.long != "extended");
    format!(
        "# bash completion for ketch, made by \"ketch --print bash\"\n\
         _ketch() {{\n    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}\n    \
         case $before in\n    {files})\n        compopt -o filenames\n        COMPREPLY=($(compgen -f -- \"$current\")) ;;\n    \
         -o|--extended)\n        local given=\n        case $current in *,*) given=${{current%,*}}, ;; esac\n        compopt -o nospace\n        \
         COMPREPLY=($(compgen -P \"$given\" -W '{extended}' -- \"${{current##*,}}\")) ;;\n    \
         -B|--protocol)\n        COMPREPLY=($(compgen -W 'ascii binary auto' -- \"$current\")) ;;\n    \
         {values}) ;;\n    *)\n        COMPREPLY=($(compgen -W '{options}' -- \"$current\")) ;;\n    esac\n}}\n\
         complete -F _ketch ketch\n"
    )
}

/// Completion for zsh.
fn zsh() -> String {
    let quoted = |text: &str| {
        text.replace('\'', "'\\''")
            .replace('[', "\\[")
            .replace(']', "\\]")
            .replace(':', "\\:")
    };
    let mut text = "#compdef ketch\n# made by \"ketch --print zsh\"\n_arguments -s \\\n".to_owned();
    for opt in shown(OPTIONS) {
        let what = quoted(&opt.told());
        let (hint, _) = opt.hint_and_default();
        let action = match (hint, opt.long) {
            (_, "extended") => ":option:_ketch_extended".to_owned(),
            ("", _) => String::new(),
            ("FILE", _) => ":file:_files".to_owned(),
            (hint, _) => format!(":{}: ", quoted(hint)),
        };
        let joint = |sign| if hint.is_empty() { "" } else { sign };
        let long = format!("--{}{}", opt.long, joint("="));
        let repeats = if matches!(opt.long, "listen" | "verbose" | "extended") {
            "*"
        } else {
            ""
        };
        let names = match opt.short {
            "" => format!("'{repeats}{long}"),
            short => format!("'{repeats}'{{-{short}{},{long}}}'", joint("+")),
        };
        writeln!(text, "  {names}[{what}]{action}' \\").expect("a String takes everything");
    }
    text.push_str("  && return\n");
    let mut values = String::new();
    for opt in shown(&EXTENDED) {
        let action = match opt.hint_and_default().0 {
            "" => String::new(),
            "FILE" => ":file:_files".to_owned(),
            hint => format!(":{}: ", quoted(hint)),
        };
        write!(
            values,
            " \\\n    '{}[{}]{action}'",
            opt.long,
            quoted(&opt.told())
        )
        .expect("a String takes everything");
    }
    text.replacen(
        "_arguments",
        &format!("_ketch_extended() {{\n  _values -s , 'extended option'{values}\n}}\n_arguments"),
        1,
    )
}

/// Completion for fish.
fn fish() -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut text = "# made by \"ketch --print fish\"\ncomplete -c ketch -f\n".to_owned();
    for opt in shown(OPTIONS) {
        text.push_str("complete -c ketch");
        if !opt.short.is_empty() {
            write!(text, " -s {}", opt.short).expect("a String takes everything");
        }
        write!(text, " -l {} -d '{}'", opt.long, quoted(&opt.told()))
            .expect("a String takes everything");
        match opt.hint_and_default().0 {
            "" => {}
            "FILE" => text.push_str(" -r -F"),
            _ if opt.long == "extended" => {
                let names = joined(shown(&EXTENDED).map(|opt| opt.long.to_owned()));
                write!(text, " -x -a '(__fish_append , {names})'")
                    .expect("a String takes everything");
            }
            _ => text.push_str(" -x"),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn every_option_stands_in_one_section() {
        let mut named = HashSet::new();
        let sections = SECTIONS
            .iter()
            .flat_map(|(title, names)| options_of(title, names));
        for long in sections.map(|opt| opt.long).chain(LINE_ALONE) {
            assert!(!find(long).is_hidden(), "{long} is hidden from the help");
            assert!(named.insert(long), "{long} stands in two sections");
        }
        for opt in shown(OPTIONS).chain(shown(&EXTENDED)) {
            assert!(named.contains(opt.long), "{} is in no section", opt.long);
        }
    }

    #[test]
    fn the_example_in_the_repository_is_the_page() {
        let (page, file) = (conf(), include_str!("../../memcached.conf.example"));
        let remedy = "cargo run -- --print conf > memcached.conf.example";
        for (line, (page, file)) in page.lines().zip(file.lines()).enumerate() {
            assert_eq!(page, file, "line {}: {remedy}", line + 1);
        }
        assert_eq!(page.len(), file.len(), "{remedy}");
    }

    #[test]
    fn every_page_names_every_option_with_its_help() {
        for name in PAGES {
            let page = page(name).unwrap();
            for opt in shown(OPTIONS).chain(shown(&EXTENDED)) {
                if name == "conf" && LINE_ALONE.contains(&opt.long) {
                    continue;
                }
                let names = [
                    opt.long.to_owned(),
                    opt.long.replace('-', "\\-"),
                    format!("\n#{}", written(opt)),
                ];
                let told = names.iter().any(|name| page.contains(name.as_str()));
                assert!(told, "{} in {name}", opt.long);
            }
        }
        // The words of the help are those of the manual.
        let man = man()
            .replace("\\-", "-")
            .replace("\\(aq", "'")
            .to_lowercase();
        let help = super::super::help::text();
        for opt in shown(OPTIONS).chain(shown(&EXTENDED)) {
            let told = opt.told();
            assert!(help.contains(&told), "{told}");
            assert!(man.contains(&told.to_lowercase()), "{told}");
        }
    }

    /// Whether a program, where there is one, finds nothing wrong in a page.
    fn is_fine_for(program: &str, args: &[&str], page: &str) -> bool {
        let spawned = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else {
            return true;
        };
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(page.as_bytes()).unwrap();
        drop(stdin);
        let out = child.wait_with_output().unwrap();
        eprintln!("{program}: {}", String::from_utf8_lossy(&out.stderr));
        out.status.success() && out.stderr.is_empty()
    }

    #[test]
    fn those_who_read_the_pages_understand_them() {
        assert!(is_fine_for("bash", &["-n"], &bash()));
        assert!(is_fine_for("zsh", &["-n"], &zsh()));
        assert!(is_fine_for("fish", &["-n"], &fish()));
        assert!(is_fine_for(
            "groff",
            &["-man", "-Tutf8", "-ww", "-z"],
            &man()
        ));
        assert!(!is_fine_for("bash", &["-n"], "case"));
    }

    #[test]
    fn bash_completes_names_files_and_lists() {
        let completed = |words: &str| {
            let script = format!(
                "{}\ncompopt() {{ :; }}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n_ketch\n\
                 echo \"${{COMPREPLY[*]}}\"\n",
                bash()
            );
            let out = Command::new("bash").args(["-c", &script]).output().unwrap();
            assert!(out.stderr.is_empty(), "{out:?}");
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(completed("ketch --memory-l"), "--memory-limit");
        assert_eq!(completed("ketch -o track"), "track_sizes");
        assert_eq!(
            completed("ketch -o modern,slab_chunk"),
            "modern,slab_chunk_max="
        );
        assert_eq!(completed("ketch -B b"), "binary");
        assert_eq!(completed("ketch -m ''"), "");
    }
}
