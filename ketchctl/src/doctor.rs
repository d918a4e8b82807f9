//! `ketchctl doctor`: what is wrong with a node, or soon will be, and what helps.
//!
//! ```text
//!  stats, settings, items, slabs, hotkeys, whatif --(twice, some seconds apart)--> Exam --> findings: number, reason, command
//! ```

use std::thread;
use std::time::Duration;

use getopts::Options;
use ketch_client::blocking::Client;

use crate::failure::{self, Failure};
use crate::figures::Figures;
use crate::hot::Hot;
use crate::{access, cluster, units, words};

const USAGE: &str = "usage: ketchctl doctor --servers LIST [options]\n\n\
    Reads each node twice and says what it finds: with the number, the reason, and what helps. Exit status 1 if there is\n\
    anything to do or a node did not answer.";

/// What a node says of itself at one moment.
#[derive(Debug, Default)]
struct Told {
    general: Figures,
    settings: Figures,
    items: Vec<(String, String)>,
    hot: Vec<Hot>,
    what_if: Figures,
}

/// Two of them, and the seconds in between.
struct Exam<'t> {
    before: &'t Told,
    now: &'t Told,
    seconds: f64,
}

impl Exam<'_> {
    fn rate(&self, key: &str) -> f64 {
        let more = self.now.general.number(key) - self.before.general.number(key);
        more.max(0.0) / self.seconds.max(0.001)
    }

    fn is_on(&self, key: &str) -> bool {
        matches!(self.now.settings.text(key), Some("yes" | "on"))
    }
}

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optopt(
        "i",
        "interval",
        "seconds between the two readings (default 3)",
        "SECONDS",
    );
    cluster::nodes_option(&mut options, "s", "servers", "the nodes");
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 0, "doctor")?;
    let interval = words::option(
        &matches,
        "interval",
        Duration::from_secs(3),
        units::duration,
    )?;
    let access = access::from(&matches)?;
    let nodes = cluster::nodes(&matches, "servers")?;
    let clients: Vec<(String, Client)> = nodes
        .iter()
        .map(|node| (node.to_string(), access.client_of(node)))
        .collect();
    let before: Vec<_> = clients.iter().map(|(_, client)| ask(client)).collect();
    thread::sleep(interval);
    let mut findings = 0;
    let mut failed = false;
    for ((node, client), before) in clients.iter().zip(before) {
        let (before, now) = match (before, ask(client)) {
            (Ok(before), Ok(now)) => (before, now),
            (Err(error), _) | (_, Err(error)) => {
                failure::tell(node, &error);
                failed = true;
                continue;
            }
        };
        let exam = Exam {
            before: &before,
            now: &now,
            seconds: interval.as_secs_f64(),
        };
        let found = examine(&exam);
        if found.is_empty() {
            words::print(format!("{node}: nothing to find fault with\n"))?;
        }
        for finding in &found {
            words::print(format!("{node}: {finding}\n"))?;
        }
        findings += found.len();
    }
    if failed || findings > 0 {
        return Err(Failure::Told);
    }
    Ok(())
}

fn ask(client: &Client) -> Result<Told, ketch_client::Error> {
    let stats = |group: &str| match client.stats(group).pop() {
        Some((_, answer)) => answer,
        None => Ok(Vec::new()),
    };
    // Groups that memcached does not have are an error there, and tell nothing.
    let own = |group: &str| stats(group).unwrap_or_default();
    let hot = own("hotkeys");
    Ok(Told {
        general: Figures::new(stats("")?),
        settings: Figures::new(stats("settings")?),
        items: stats("items")?,
        hot: hot
            .iter()
            .filter_map(|(key, value)| Hot::of(key, value))
            .collect(),
        what_if: Figures::new(own("whatif")),
    })
}

/// memcached's versions before this have faults that clients can use.
const OLDEST: [u32; 3] = [1, 6, 22];

/// What there is to say, the gravest first.
fn examine(exam: &Exam<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let general = &exam.now.general;
    let number = |key: &str| general.number(key);
    let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };

    let (limit, machine) = (number("limit_maxbytes"), number("ketch_machine_bytes"));
    if machine > 0.0 && limit > machine * 0.9 {
        found.push(format!(
            "-m is {}, and there is {} of memory in all: a full cache may be killed; start with -m auto, or less",
            units::bytes(limit),
            units::bytes(machine)
        ));
    }
    let refused = exam.rate("store_no_memory");
    if refused > 0.0 {
        found.push(format!(
            "{refused:.1} stores a second are refused for want of memory: more memory (-m), or evictions (no -M)"
        ));
    }
    let (open, most) = (number("curr_connections"), number("max_connections"));
    if share(open, most) > 0.8 {
        found.push(format!(
            "{open} of {most} connections are open: raise -c, or look for clients that do not close (stats conns)"
        ));
    }
    if exam.rate("rejected_connections") > 0.0 {
        found.push(format!(
            "{:.1} connections a second are refused: raise -c and the limit on open files",
            exam.rate("rejected_connections")
        ));
    }
    let (accepted, ops) = (
        exam.rate("total_connections"),
        exam.now.general.ops() - exam.before.general.ops(),
    );
    let ops = ops.max(0.0) / exam.seconds.max(0.001);
    if accepted > 50.0 && accepted * 20.0 > ops {
        found.push(format!(
            "{accepted:.0} new connections a second for {ops:.0} commands: clients should keep their connections"
        ));
    }
    if let Some(finding) = open_address(exam) {
        found.push(finding);
    }
    let version: Vec<u32> = general
        .text("version")
        .unwrap_or_default()
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect();
    if general.text("ketch_version").is_none() && version.len() == 3 && version[..] < OLDEST[..] {
        found.push(format!(
            "memcached {} is old, and has faults that were mended since: install a newer one",
            general.text("version").unwrap_or_default()
        ));
    }
    if let Some(hot) = exam
        .now
        .hot
        .iter()
        .find(|hot| hot.by == "reads" && hot.rank == 0)
        && hot.share > 0.1
        && exam.rate("cmd_get") > 100.0
    {
        found.push(format!(
            "{:.0} % of the reads are of {}: a near cache in the client, or several copies, spread them (ketchctl hot)",
            hot.share * 100.0,
            hot.key
        ));
    }
    let (evicted, unread) = (exam.rate("evictions"), exam.rate("evicted_unfetched"));
    if evicted > 10.0 && share(unread, evicted) > 0.5 {
        found.push(format!(
            "{:.0} % of the {evicted:.0} items evicted a second were never read: store less, or with shorter times to live (stats prefixes)",
            share(unread, evicted) * 100.0
        ));
    }
    found.extend(starving(exam));
    if evicted > 0.0
        && let (now, twice) = (
            exam.now.what_if.number("1:hit_ratio"),
            exam.now.what_if.number("2:hit_ratio"),
        )
        && twice > now + 0.03
    {
        found.push(format!(
            "twice the memory would make the hit ratio {:.1} % instead of {:.1} %: raise -m (ketchctl stats whatif)",
            twice * 100.0,
            now * 100.0
        ));
    }
    found
}

/// Whether others can reach it without a password, or over UDP.
fn open_address(exam: &Exam<'_>) -> Option<String> {
    let settings = &exam.now.settings;
    let inter = settings.text("inter").unwrap_or("NULL");
    let is_local = |addr: &str| {
        addr == "NULL"
            || addr.contains("127.0.0.1")
            || addr.contains("localhost")
            || addr.contains("::1")
    };
    if inter.split(',').all(is_local)
        || settings
            .text("domain_socket")
            .is_some_and(|path| path != "NULL")
    {
        return None;
    }
    if settings.number("udpport") > 0.0 {
        return Some(format!(
            "UDP is on at {inter}: turn it off (-U 0), unless clients need it"
        ));
    }
    let has_login = exam.is_on("auth_enabled_sasl")
        || settings
            .text("auth_enabled_ascii")
            .is_some_and(|file| file != "no");
    (!has_login).then(|| {
        format!("whoever reaches {inter} reads and writes all keys: a login (-Y FILE), or an address of its own (-l)")
    })
}

/// Classes whose items go much sooner than those of the others.
fn starving(exam: &Exam<'_>) -> Vec<String> {
    let value = |told: &Told, class: &str, name: &str| {
        let wanted = format!("items:{class}:{name}");
        let found = told.items.iter().find(|(key, _)| *key == wanted);
        found.and_then(|(_, value)| value.parse::<f64>().ok())
    };
    let mut ages: Vec<(String, f64, f64)> = Vec::new();
    for (key, _) in &exam.now.items {
        let Some(class) = key
            .strip_prefix("items:")
            .and_then(|key| key.strip_suffix(":evicted"))
        else {
            continue;
        };
        let (Some(now), Some(age)) = (
            value(exam.now, class, "evicted"),
            value(exam.now, class, "evicted_time"),
        ) else {
            continue;
        };
        let evicted = now - value(exam.before, class, "evicted").unwrap_or(0.0);
        if evicted > 0.0 {
            ages.push((class.to_owned(), age, evicted / exam.seconds.max(0.001)));
        }
    }
    let Some(oldest) = ages.iter().map(|(_, age, _)| *age).reduce(f64::max) else {
        return Vec::new();
    };
    ages.iter()
        .filter(|(_, age, _)| oldest > 60.0 && *age * 10.0 < oldest)
        .map(|(class, age, rate)| {
            format!(
                "class {class} evicts {rate:.0} items a second that were idle for {age:.0} s, others for {oldest:.0} s: \
                 let pages move (-o slab_automove=1), or see what stores so many of that size (stats prefixes)"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(&str, &str)]) -> Figures {
        Figures::new(
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        )
    }

    fn told(general: &[(&str, &str)], settings: &[(&str, &str)]) -> Told {
        Told {
            general: figures(general),
            settings: figures(settings),
            ..Told::default()
        }
    }

    fn found(before: &Told, now: &Told) -> String {
        let exam = Exam {
            before,
            now,
            seconds: 2.0,
        };
        examine(&exam).join("\n")
    }

    #[test]
    fn a_healthy_node_is_left_alone() {
        let now = told(
            &[
                ("version", "1.6.45"),
                ("ketch_version", "0.1.0"),
                ("curr_connections", "3"),
                ("max_connections", "1024"),
                ("limit_maxbytes", "1000"),
                ("ketch_machine_bytes", "9000"),
            ],
            &[("inter", "127.0.0.1"), ("udpport", "0")],
        );
        assert_eq!(found(&now, &now), "");
    }

    #[test]
    fn each_fault_has_its_number_and_its_way_out() {
        let before = told(
            &[
                ("total_connections", "0"),
                ("evictions", "0"),
                ("evicted_unfetched", "0"),
            ],
            &[],
        );
        let mut now = told(
            &[
                ("version", "1.6.18"),
                ("curr_connections", "900"),
                ("max_connections", "1024"),
                ("limit_maxbytes", "950"),
                ("ketch_machine_bytes", "1000"),
                ("store_no_memory", "4"),
                ("rejected_connections", "2"),
                ("total_connections", "400"),
                ("evictions", "200"),
                ("evicted_unfetched", "150"),
                ("cmd_get", "1000"),
            ],
            &[
                ("inter", "0.0.0.0"),
                ("udpport", "0"),
                ("auth_enabled_ascii", "no"),
            ],
        );
        now.hot = vec![Hot {
            by: "reads".into(),
            rank: 0,
            key: "front".into(),
            share: 0.5,
            count: "500".into(),
        }];
        now.what_if = figures(&[("1:hit_ratio", "0.8"), ("2:hit_ratio", "0.9")]);
        now.items = [
            ("items:1:evicted", "100"),
            ("items:1:evicted_time", "3"),
            ("items:2:evicted", "100"),
            ("items:2:evicted_time", "600"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let text = found(&before, &now);
        for part in [
            "-m auto",
            "2.0 stores a second",
            "900 of 1024",
            "1.0 connections a second",
            "200 new connections",
            "0.0.0.0",
            "1.6.18 is old",
            "50 % of the reads are of front",
            "75 % of the 100 items",
            "class 1 evicts 50",
            "90.0 % instead of 80.0 %",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let udp = told(&[], &[("inter", "10.0.0.1"), ("udpport", "11211")]);
        assert!(found(&udp, &udp).contains("UDP is on"));
    }
}
