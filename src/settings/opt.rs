//! What an option is: its names, what it does, and what is told of it. The tables of them are in `options.rs` and `extended.rs`.

use super::Settings;
use super::values::Beginning;
use crate::knobs::Knob;

/// One option, with a dash or behind `-o`.
#[derive(Clone, Copy)]
pub(super) struct Opt {
    /// The letter; empty for those without one.
    pub short: &'static str,
    /// The word, and the name the code knows the option by.
    pub long: &'static str,
    pub kind: Kind,
    /// The line of help; empty keeps the option out of the help text.
    pub help: &'static str,
    /// More sentences about it, for the pages that have room for them.
    pub more: &'static str,
    /// What stands for the value in an example, where there is no default.
    pub example: &'static str,
    /// Its value is told in "stats settings" and does nothing else, for the reason that `help` gives.
    pub shown_only: bool,
}

/// What an option does when given.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Stands alone.
    Flag(fn(&mut Settings)),
    /// Takes a value; `hint` stands for it in the help text, `default` is what holds without the option.
    Value {
        hint: &'static str,
        default: &'static str,
        set: fn(&mut Settings, &str) -> Result<(), String>,
    },
    /// Takes the value of a knob.
    Knob(Knob),
    /// Stands alone and turns knobs.
    Turn(&'static [(Knob, u32)]),
    /// Taken for memcached's sake and of no effect here, for the reason `why`; `value` is empty for a flag. The start
    /// says so and goes on.
    Inert {
        value: &'static str,
        why: &'static str,
    },
    /// Known to memcached, not done here yet; `value` is empty for a flag.
    NotBuilt {
        value: &'static str,
        what: &'static str,
    },
}

impl Opt {
    const fn new(short: &'static str, long: &'static str, kind: Kind, help: &'static str) -> Self {
        Opt {
            short,
            long,
            kind,
            help,
            more: "",
            example: "",
            shown_only: false,
        }
    }

    /// The option with more sentences about it.
    pub const fn more(self, more: &'static str) -> Self {
        Opt { more, ..self }
    }

    /// The option without an effect but in "stats settings"; its help is the reason.
    pub const fn shown_only(self) -> Self {
        Opt {
            shown_only: true,
            ..self
        }
    }

    /// The option with a value for examples.
    pub const fn example(self, example: &'static str) -> Self {
        Opt { example, ..self }
    }

    /// What stands for the value in the help, and what holds without the option; empty where there is none.
    pub fn hint_and_default(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Value { hint, default, .. } => (hint, default),
            Kind::Inert { value, .. } | Kind::NotBuilt { value, .. } => (value, ""),
            Kind::Knob(knob) => (knob.row().hint, knob.row().told),
            Kind::Flag(_) | Kind::Turn(_) => ("", ""),
        }
    }

    /// The line of help, which says of an option without effect that it has none.
    pub fn told(&self) -> String {
        let inert = match self.kind {
            Kind::Inert { .. } => "accepted, no effect: ",
            _ if self.shown_only => "told in \"stats settings\", no effect: ",
            _ => "",
        };
        format!("{inert}{}", self.help)
    }

    /// Whether the option comes with a value.
    pub fn takes_value(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Flag(_)
                | Kind::Turn(_)
                | Kind::NotBuilt { value: "", .. }
                | Kind::Inert { value: "", .. }
        )
    }

    /// How memcached reads its number, where it takes one and reads over what follows.
    pub fn beginning(&self) -> Option<Beginning> {
        Some(match self.long {
            "unix-mask" => Beginning::Octal,
            "hashpower" | "tail_repair_time" => Beginning::Above0,
            "slab-growth-factor" | "slab_automove_ratio" | "hot_max_factor" | "warm_max_factor" => {
                Beginning::Fraction
            }
            "port"
            | "udp-port"
            | "memory-limit"
            | "conn-limit"
            | "max-reqs-per-event"
            | "slab-min-size"
            | "threads"
            | "listen-backlog"
            | "max-item-size"
            | "slab_automove"
            | "slab_automove_window"
            | "lru_crawler_sleep"
            | "hot_lru_pct"
            | "warm_lru_pct"
            | "temporary_ttl"
            | "idle_timeout" => Beginning::Whole,
            "slab_chunk_max"
            | "slab_automove_freeratio"
            | "lru_crawler_tocrawl"
            | "watcher_logbuf_size"
            | "worker_logbuf_size"
            | "read_buf_mem_limit"
            | "ssl_keyformat"
            | "ssl_verify_mode"
            | "ssl_min_version"
            | "ssl_wbuf_size" => Beginning::UpToBlank,
            _ => return None,
        })
    }

    /// Whether memcached starts though its value is empty, as that of a variable that is not set.
    pub fn may_be_empty(&self) -> bool {
        const MAY_BE_EMPTY: [&str; 15] = [
            "port",
            "udp-port",
            "unix-socket",
            "unix-mask",
            "listen",
            "user",
            "pidfile",
            "listen-backlog",
            "lru_crawler_sleep",
            "temporary_ttl",
            "idle_timeout",
            "ssl_chain_cert",
            "ssl_key",
            "ssl_ciphers",
            "ssl_ca_cert",
        ];
        MAY_BE_EMPTY.contains(&self.long)
    }

    /// Whether memcached does not have it.
    pub fn is_own(&self) -> bool {
        OWN.contains(&self.long)
    }

    /// Whether it is left out of the help text.
    pub fn is_hidden(&self) -> bool {
        self.help.is_empty()
    }
}

/// An option that stands alone.
pub(super) const fn flag(
    short: &'static str,
    long: &'static str,
    apply: fn(&mut Settings),
    help: &'static str,
) -> Opt {
    Opt::new(short, long, Kind::Flag(apply), help)
}

/// The options of a knob: the one that takes its value, and those that turn it without one.
pub(super) fn of_knob(knob: Knob) -> impl Iterator<Item = Opt> {
    let row = knob.row();
    let valued = (!row.option.is_empty()).then(|| Opt {
        more: row.more,
        example: row.example,
        shown_only: row.shown_only,
        ..Opt::new("", row.option, Kind::Knob(knob), row.help)
    });
    let flags = row.flags.iter();
    let flags = flags.map(|(name, turns, help)| Opt::new("", name, Kind::Turn(turns), help));
    valued.into_iter().chain(flags)
}

/// An option with a value.
pub(super) const fn value(
    short: &'static str,
    long: &'static str,
    (hint, default): (&'static str, &'static str),
    set: fn(&mut Settings, &str) -> Result<(), String>,
    help: &'static str,
) -> Opt {
    Opt::new(short, long, Kind::Value { hint, default, set }, help)
}

/// An option of memcached that has no effect here, for the reason `why`.
pub(super) const fn inert(
    short: &'static str,
    long: &'static str,
    value: &'static str,
    why: &'static str,
) -> Opt {
    Opt::new(short, long, Kind::Inert { value, why }, why)
}

/// An option that ends the start: `what` of memcached is missing here.
pub(super) const fn not_built(
    short: &'static str,
    long: &'static str,
    value: &'static str,
    what: &'static str,
) -> Opt {
    Opt::new(short, long, Kind::NotBuilt { value, what }, "")
}

/// The reason given for what memcached does and ketch does not.
pub(super) fn not_built_reason(what: &str) -> String {
    format!("not built yet: {what}")
}

/// The names that memcached does not have; those it has may be cut short as there.
const OWN: [&str; 8] = [
    "config",
    "http",
    "http-tls",
    "http-token-file",
    "log-format",
    "logfile",
    "prefix-delimiter",
    "print",
];
