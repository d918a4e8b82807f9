//! The knobs of the cache: values that options set at the start and commands turn while the server runs.
//!
//! ```text
//!  -o NAME=VALUE --> Knobs, in the settings --> Tuning, in the cache <-- commands
//!                                                  '--> stats settings
//! ```
//!
//! The table below is the one place that says what a knob is called, what it may be, and what is told of it. The options,
//! their help and pages, `stats settings` and the commands walk it. What a knob does is written where it is used.

/// How the number of a knob is written and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 0 or 1, told as `no` or `yes`.
    Switch,
    /// 0 or 1, told as `off` or `on`.
    OnOff,
    /// A whole number from the first to the second, of the unit named.
    Whole(u32, u32, &'static str),
    /// A whole number that may have k, m or g behind it.
    Count,
    /// Percent, from 1 to the number.
    Percent(u8),
    /// A ratio above 0, kept in thousandths; at most 1 or of any size. Told with so many digits.
    #[allow(missing_docs, reason = "told in the line above")]
    Ratio { to_1: bool, digits: usize },
    /// One of these names, by its place.
    Name(&'static [&'static str]),
    /// Seconds, or [`OFF`].
    Ttl,
}

/// A ratio in the thousandths that a knob of [`Form::Ratio`] keeps, the nearest; one above 0 stays above 0.
pub fn in_milli(ratio: f64) -> u32 {
    // Beyond its range the cast stops at the nearest end.
    let milli = (ratio * 1000.0).round() as u32;
    milli.max(u32::from(ratio > 0.0))
}

/// A time to live that nothing has.
pub const OFF: u32 = u32::MAX;

/// An option that turns knobs and takes no value: its name, what it sets, its help.
pub type Flag = (&'static str, &'static [(Knob, u32)], &'static str);

/// A row of the table: all that is the same of a knob wherever it is set, shown or turned.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The option behind `-o` that takes the value; empty where there is none.
    pub option: &'static str,
    /// What stands for the value in the help text.
    pub hint: &'static str,
    /// The value without the option, as a user would write it; empty where the option is off.
    pub told: &'static str,
    /// A value for examples, where `told` is empty.
    pub example: &'static str,
    /// The line of help.
    pub help: &'static str,
    /// More sentences, for the pages that have room for them.
    pub more: &'static str,
    /// What the option asks for when it comes without its value, where it may.
    pub bare: Option<u32>,
    /// Its value shows in `stats settings` and does nothing else, for the reason that `help` gives.
    pub shown_only: bool,
    /// Options that turn it without a value.
    pub flags: &'static [Flag],
    /// The name in `stats settings`; empty for what is told there in another form.
    pub stat: &'static str,
    /// The section of the manual that tells of it.
    pub section: &'static str,
    /// How its number is written, and which it may be.
    pub form: Form,
    /// Its number without the option.
    pub default: u32,
}

/// A row with nothing said yet.
const ROW: Row = Row {
    option: "",
    hint: "",
    told: "",
    example: "",
    help: "",
    more: "",
    bare: None,
    shown_only: false,
    flags: &[],
    stat: "",
    section: "",
    form: Form::Switch,
    default: 1,
};
const PAGES: Row = Row {
    section: "Pages between slab classes",
    ..ROW
};
const LRU: Row = Row {
    section: "LRU",
    ..ROW
};

/// Declares the knobs and their rows side by side.
macro_rules! knobs {
    ($($(#[$doc:meta])* $knob:ident = $row:expr;)*) => {
        /// A knob, by the number of its row.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Knob { $($(#[$doc])* $knob,)* }

        static ROWS: [Row; Knob::COUNT] = [$($row),*];

        impl Knob {
            /// All of them, in the order of the table.
            pub const ALL: [Knob; Knob::COUNT] = [$(Knob::$knob),*];
            /// How many there are.
            pub const COUNT: usize = [$(Knob::$knob),*].len();
        }
    };
}

knobs! {
    /// A full cache evicts; off with `-M`, where it answers an error.
    Evictions = Row { stat: "evictions", form: Form::OnOff, ..ROW };
    /// Pages may move between slab classes.
    SlabReassign = Row {
        stat: "slab_reassign",
        flags: &[
            ("slab_reassign", &[(Knob::SlabReassign, 1)], "let pages move between slab classes (default)"),
            ("no_slab_reassign", &[(Knob::SlabReassign, 0)], "keep pages in their slab class"),
        ],
        ..PAGES
    };
    /// When pages move by themselves: 0 never, 1 on need, 2 at each eviction.
    SlabAutomove = Row {
        option: "slab_automove",
        stat: "slab_automove",
        hint: "NUM",
        told: "1",
        help: "move pages by themselves: 0 never, 1 on need, 2 at each eviction",
        more: "With 0 stores move none either: a class that has no page when memory is full takes one beyond -m.",
        bare: Some(1),
        flags: &[("no_slab_automove", &[(Knob::SlabAutomove, 0)], "same as slab_automove=0")],
        form: Form::Whole(0, 2, ""),
        ..PAGES
    };
    /// How near the costs of two classes' items must be for pages to stay.
    SlabAutomoveRatio = Row {
        option: "slab_automove_ratio",
        stat: "slab_automove_ratio",
        hint: "NUM",
        told: "0.8",
        help: "how near the costs of two classes' items must be for pages to stay; nearer 1 moves more",
        form: Form::Ratio { to_1: true, digits: 2 },
        default: 800,
        ..PAGES
    };
    /// Rounds of memcached's mover that its decision looks back on.
    SlabAutomoveWindow = Row {
        option: "slab_automove_window",
        stat: "slab_automove_window",
        hint: "NUM",
        told: "10",
        help: "pages move by costs that are means already; 3 to 1800",
        shown_only: true,
        form: Form::Whole(3, 1800, ""),
        default: 10,
        ..PAGES
    };
    /// Share of memory that memcached's mover keeps free.
    SlabAutomoveFreeratio = Row {
        option: "slab_automove_freeratio",
        stat: "slab_automove_freeratio",
        hint: "NUM",
        told: "0.01",
        help: "pages are freed when they are needed",
        shown_only: true,
        form: Form::Ratio { to_1: true, digits: 3 },
        default: 10,
        ..PAGES
    };
    /// The eviction policy.
    Eviction = Row {
        option: "eviction",
        hint: "NAME",
        told: "s3fifo",
        help: "who gives way when memory is full: s3fifo, slru (memcached's), lru, lfu, fifo, random, ttl",
        more: "docs/eviction.md tells when to choose which.",
        form: Form::Name(&["s3fifo", "slru", "lru", "lfu", "fifo", "random", "ttl"]),
        default: 0,
        ..LRU
    };
    /// The maintainer balances the segments in the background.
    LruMaintainer = Row {
        stat: "lru_maintainer_thread",
        flags: &[
            (
                "lru_maintainer",
                &[(Knob::LruMaintainer, 1), (Knob::LruSegmented, 1)],
                "balance a segmented LRU in the background (default)",
            ),
            (
                "no_lru_maintainer",
                &[(Knob::LruMaintainer, 0), (Knob::LruSegmented, 0)],
                "one flat LRU per slab class",
            ),
        ],
        ..LRU
    };
    /// Off with `lru mode flat`: then a policy of several segments gives way to a flat LRU.
    LruSegmented = Row { stat: "lru_segmented", ..LRU };
    /// Percent of a class that HOT may hold.
    HotLruPct = Row {
        option: "hot_lru_pct",
        stat: "hot_lru_pct",
        hint: "PCT",
        told: "20",
        help: "share of a class for the HOT segment, in percent",
        more: "Of -o eviction=slru alone, as the next three.",
        form: Form::Percent(79),
        default: 20,
        ..LRU
    };
    /// Percent of a class that WARM may hold.
    WarmLruPct = Row {
        option: "warm_lru_pct",
        stat: "warm_lru_pct",
        hint: "PCT",
        told: "40",
        help: "share of a class for the WARM segment, in percent; with HOT at most 80",
        form: Form::Percent(79),
        default: 40,
        ..LRU
    };
    /// An item stays in HOT no longer than this part of COLD's age.
    HotMaxFactor = Row {
        option: "hot_max_factor",
        stat: "hot_max_factor",
        hint: "NUM",
        told: "0.2",
        help: "age an item may reach in HOT, as a share of COLD's age",
        form: Form::Ratio { to_1: false, digits: 2 },
        default: 200,
        ..LRU
    };
    /// The same for WARM.
    WarmMaxFactor = Row {
        option: "warm_max_factor",
        stat: "warm_max_factor",
        hint: "NUM",
        told: "2.0",
        help: "age an item may reach in WARM, as a share of COLD's age",
        form: Form::Ratio { to_1: false, digits: 2 },
        default: 2000,
        ..LRU
    };
    /// Items that live no longer than this go to TEMP.
    TemporaryTtl = Row {
        option: "temporary_ttl",
        hint: "SECONDS",
        example: "61",
        help: "keep items with less time to live in a TEMP segment; off if not given",
        form: Form::Ttl,
        default: OFF,
        ..LRU
    };
    /// The crawler looks for expired items.
    LruCrawler = Row {
        stat: "lru_crawler",
        flags: &[
            (
                "lru_crawler",
                &[(Knob::LruCrawler, 1)],
                "look for expired items in the background (default)",
            ),
            ("no_lru_crawler", &[(Knob::LruCrawler, 0)], "leave expired items until they are met"),
        ],
        ..LRU
    };
    /// The crawler's sleep between items, as memcached counts it.
    LruCrawlerSleep = Row {
        option: "lru_crawler_sleep",
        stat: "lru_crawler_sleep",
        hint: "US",
        told: "100",
        help: "microseconds for each 1000 items the crawler looks at; 0 is as fast as it can",
        form: Form::Whole(0, 1_000_000, "microseconds"),
        default: 100,
        ..LRU
    };
    /// Items that memcached's crawler looks at in a class and run.
    LruCrawlerTocrawl = Row {
        option: "lru_crawler_tocrawl",
        stat: "lru_crawler_tocrawl",
        hint: "NUM",
        told: "0",
        help: "the crawler looks at all items",
        shown_only: true,
        form: Form::Count,
        default: 0,
        ..LRU
    };
}

impl Knob {
    /// What the table says of it.
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }
}

impl Row {
    /// Whether the knob may be set to a number.
    pub fn takes(&self, number: u32) -> bool {
        match self.form {
            Form::Switch | Form::OnOff => number <= 1,
            Form::Whole(least, most, _) => (least..=most).contains(&number),
            Form::Count | Form::Ttl => true,
            Form::Percent(most) => (1..=u32::from(most)).contains(&number),
            Form::Ratio { to_1, .. } => number > 0 && (!to_1 || number <= 1000),
            Form::Name(names) => (number as usize) < names.len(),
        }
    }
}

/// A value of each knob.
#[derive(Clone, PartialEq, Eq)]
pub struct Knobs([u32; Knob::COUNT]);

impl Default for Knobs {
    fn default() -> Self {
        Knobs(Knob::ALL.map(|knob| knob.row().default))
    }
}

impl std::fmt::Debug for Knobs {
    /// Those that are not as without options.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let turned = Knob::ALL
            .into_iter()
            .filter(|knob| self.get(*knob) != knob.row().default);
        f.debug_map()
            .entries(turned.map(|knob| (knob, self.get(knob))))
            .finish()
    }
}

impl Knobs {
    /// The value of one.
    pub fn get(&self, knob: Knob) -> u32 {
        self.0[knob as usize]
    }

    /// Sets one.
    pub fn set(&mut self, knob: Knob, number: u32) {
        self.0[knob as usize] = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_kept_to_the_nearest_thousandth() {
        for (ratio, milli) in [
            (1.001, 1001),
            (0.25, 250),
            (0.0001, 1),
            (0.0, 0),
            (1e12, u32::MAX),
        ] {
            assert_eq!(in_milli(ratio), milli, "{ratio}");
        }
    }
}
