//! The command line: a mode, and options that mean the same in every mode.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use getopts::{Matches, Options as Grammar};

use crate::conn::Target;
use crate::dataset::Dataset;
use crate::process::Process;
use crate::run::{Limit, Plan};
use crate::sizes::Sizes;
use crate::workload::{Popularity, Workload};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A workload for a time.
    Run,
    /// Store items and count which are still there.
    Fill,
    /// Replay a trace.
    Replay,
    /// Hold connections.
    Idle,
    /// Be the server that does nothing.
    Floor,
}

/// The command line, understood.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to do.
    pub mode: Mode,
    /// The run.
    pub plan: Plan,
    /// The name of the workload.
    pub workload_name: String,
    /// Store every key before the run.
    pub fill: bool,
    /// `Replay`: the trace.
    pub trace: Option<PathBuf>,
    /// No line each second.
    pub quiet: bool,
    /// Where the JSON goes; `-` is the standard output, in place of the text.
    pub json: Option<PathBuf>,
    /// Where the HTML report goes.
    pub html: Option<PathBuf>,
    /// All words of the command line, for reports.
    pub command: String,
}

fn grammar() -> Grammar {
    let mut g = Grammar::new();
    g.optmulti(
        "s",
        "server",
        "server: HOST:PORT, PORT or /SOCKET; more than one by repetition",
        "ADDR",
    );
    g.optopt(
        "w",
        "workload",
        &format!("{} (default get)", Workload::NAMES),
        "NAME",
    );
    g.optopt("m", "multi", "keys a reading command names", "N");
    g.optopt(
        "",
        "writes",
        "share of keys stored rather than read, 0 to 1",
        "SHARE",
    );
    g.optopt(
        "",
        "misses",
        "share of reads for keys that nobody stored, 0 to 1",
        "SHARE",
    );
    g.optopt("k", "keys", "number of keys (default 100000)", "N");
    g.optopt("", "key-size", "bytes of a key (default 20)", "N");
    g.optopt(
        "v",
        "value-size",
        "N, uniform:A-B or weighted:N@W,N@W (default 100)",
        "SIZES",
    );
    g.optopt(
        "p",
        "popularity",
        "uniform, zipf:THETA or sequential (default uniform)",
        "LAW",
    );
    g.optopt("c", "connections", "connections (default 50)", "N");
    g.optopt(
        "d",
        "depth",
        "commands a connection sends at once (default 1)",
        "N",
    );
    g.optopt("t", "threads", "threads (default 1)", "N");
    g.optopt("T", "time", "seconds to run (default 10)", "S");
    g.optopt("n", "operations", "keys to ask for, instead of a time", "N");
    g.optopt(
        "W",
        "warmup",
        "seconds at the start that are not counted (default 0)",
        "S",
    );
    g.optopt("r", "rate", "open loop: keys per second", "N");
    g.optflag("f", "fill", "store every key before the run");
    g.optflag(
        "",
        "unchecked",
        "do not check keys, lengths and contents of replies",
    );
    g.optopt("", "seed", "for random keys (default 1)", "N");
    g.optopt(
        "",
        "pid",
        "the server's process: shows its CPU time and memory",
        "PID",
    );
    g.optflag("q", "quiet", "no line each second");
    g.optopt(
        "j",
        "json",
        "write the result as JSON; - for standard output",
        "FILE",
    );
    g.optopt("", "html", "write a report with plots", "FILE");
    g.optflag("h", "help", "this help");
    g
}

/// The help text.
pub fn usage() -> String {
    let brief = "\
ketch-bench [MODE] [OPTION..]: load for servers that speak memcached's protocols.

  run      a workload (the default)
  fill     store -k items, then count which are resident, and bytes an item
  replay   FILE: a trace as cache-aside, get and on a miss set; one object id a line, - for standard input
  idle     hold -c connections for -T seconds, and show the memory of --pid
  floor    be a server at -s that answers -w with canned bytes: what the network alone allows
           (aim at it with --unchecked and the same -w -k -v -m --key-size)

An operation is a key. Keys and values follow from a number, and every reply is checked
for its key, length and content.";
    grammar().usage(brief)
}

impl Options {
    /// Reads the words behind the program's name; `None` asks for the help.
    pub fn parse(words: &[String]) -> Result<Option<Options>, String> {
        let found = grammar().parse(words).map_err(|error| error.to_string())?;
        if found.opt_present("help") {
            return Ok(None);
        }
        let mut free = found.free.iter().map(String::as_str);
        let mode = match free.next() {
            None | Some("run") => Mode::Run,
            Some("fill") => Mode::Fill,
            Some("replay") => Mode::Replay,
            Some("idle") => Mode::Idle,
            Some("floor") => Mode::Floor,
            Some(other) => return Err(format!("{other} is no mode: run fill replay idle floor")),
        };
        let trace = match mode {
            Mode::Replay => Some(PathBuf::from(free.next().ok_or("replay needs a trace")?)),
            _ => None,
        };
        if let Some(word) = free.next() {
            return Err(format!("{word}: one word too many"));
        }
        let workload_name = found
            .opt_str("workload")
            .unwrap_or_else(|| "get".to_owned());
        Ok(Some(Options {
            mode,
            plan: plan(&found, &workload_name)?,
            workload_name,
            fill: found.opt_present("fill"),
            trace,
            quiet: found.opt_present("quiet"),
            json: found.opt_str("json").map(PathBuf::from),
            html: found.opt_str("html").map(PathBuf::from),
            command: format!("ketch-bench {}", words.join(" ")),
        }))
    }
}

fn plan(found: &Matches, workload_name: &str) -> Result<Plan, String> {
    let mut targets = Vec::new();
    for text in found
        .opt_strs("server")
        .iter()
        .flat_map(|list| list.split(','))
    {
        targets.push(Target::parse(text)?);
    }
    if targets.is_empty() {
        targets.push(Target::parse("11211")?);
    }
    let mut workload = Workload::named(workload_name)
        .ok_or_else(|| format!("{workload_name} is no workload: {}", Workload::NAMES))?;
    workload.multi = whole(found, "multi", workload.multi as u64, 1..=10_000)? as usize;
    workload.writes = real(found, "writes", 0.0, 1.0)?.unwrap_or(workload.writes);
    workload.misses = real(found, "misses", 0.0, 1.0)?.unwrap_or(0.0);
    let keys = whole(found, "keys", 100_000, 1..=1_000_000_000_000)?;
    let sizes = Sizes::parse(
        &found
            .opt_str("value-size")
            .unwrap_or_else(|| "100".to_owned()),
    )?;
    let key_size = whole(found, "key-size", 20, 1..=250)? as usize;
    // Keys that nobody stored have the ids behind the others.
    let data = Arc::new(Dataset::new(keys * 2, key_size, sizes)?);
    let popularity = found
        .opt_str("popularity")
        .unwrap_or_else(|| "uniform".to_owned());
    let seconds = |name, default| -> Result<Duration, String> {
        Ok(Duration::from_secs_f64(
            real(found, name, 0.0, 1e6)?.unwrap_or(default),
        ))
    };
    let limit = match found.opt_present("operations") {
        true => Limit::Keys(whole(found, "operations", 0, 0..=u64::MAX - 1)?),
        false => Limit::Time(seconds("time", 10.0)?),
    };
    let server = match found.opt_present("pid") {
        true => Some(Process(
            whole(found, "pid", 0, 1..=u64::from(u32::MAX))? as u32
        )),
        false => None,
    };
    Ok(Plan {
        targets,
        workload,
        data,
        keys,
        popularity: Popularity::parse(&popularity)?,
        connections: whole(found, "connections", 50, 1..=1_000_000)? as usize,
        depth: whole(found, "depth", 1, 1..=100_000)? as usize,
        threads: whole(found, "threads", 1, 1..=1024)? as usize,
        limit,
        warmup: seconds("warmup", 0.0)?,
        rate: real(found, "rate", 0.001, 1e12)?,
        strict: !found.opt_present("unchecked"),
        seed: whole(found, "seed", 1, 0..=u64::MAX)?,
        server,
    })
}

fn whole(
    found: &Matches,
    name: &str,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, String> {
    let Some(text) = found.opt_str(name) else {
        return Ok(default);
    };
    match text.parse() {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(format!(
            "--{name} {text}: a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

fn real(found: &Matches, name: &str, low: f64, high: f64) -> Result<Option<f64>, String> {
    let Some(text) = found.opt_str(name) else {
        return Ok(None);
    };
    match text.parse::<f64>() {
        Ok(n) if (low..=high).contains(&n) => Ok(Some(n)),
        _ => Err(format!("--{name} {text}: a number from {low} to {high}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, String> {
        Options::parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_full_line() {
        let line = "run -s 2000 -s /s -w mget -m 5 -k 10 -v uniform:1-9 -p zipf:0.9 -c 7 -d 3 -n 99 -r 5.5 -f";
        let options = parse(line).expect("a good line").expect("no help");
        let plan = options.plan;
        assert_eq!(
            (plan.targets.len(), plan.workload.multi, plan.keys),
            (2, 5, 10)
        );
        assert_eq!((plan.connections, plan.depth, plan.rate), (7, 3, Some(5.5)));
        assert_eq!(plan.data.sizes(), &Sizes::Uniform(1, 9));
        assert_eq!(plan.popularity, Popularity::Zipf(0.9));
        assert!(matches!(plan.limit, Limit::Keys(99)) && options.fill && plan.strict);
    }

    #[test]
    fn faults_name_the_option() {
        for (line, word) in [
            ("-c 0", "connections"),
            ("-w geet", "geet"),
            ("--writes 2", "writes"),
            ("replay", "trace"),
            ("dance", "dance"),
            ("fill now", "now"),
            ("-k 1000000 --key-size 3", "keys"),
            ("-s 1.2.3.4:x", "1.2.3.4:x"),
            ("-p zipf:-1", "zipf"),
        ] {
            let fault = parse(line).expect_err(line);
            assert!(fault.contains(word), "{line}: {fault}");
        }
        assert!(parse("--help").expect("a good line").is_none());
        assert!(usage().contains("--popularity"));
    }
}
