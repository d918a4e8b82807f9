//! ketchctl: a command for people who run a cluster.
//!
//! ```text
//!  ketchctl COMMAND [options]  -->  COMMANDS --> one file a command; options they share in cluster.rs
//! ```
//!
//! Exit status: see [`EXIT_STATUS`]. Errors go to standard error, a line each.

#![forbid(unsafe_code)]

mod access;
mod audit;
mod cluster;
mod copy;
mod count;
mod delete;
mod doctor;
mod failure;
mod figures;
mod get;
mod hot;
mod json;
mod load;
mod nodes;
mod ping;
mod record;
mod relay;
mod ring;
mod rings;
mod routes;
mod set;
mod shift;
mod signals;
mod snapshot;
mod stats;
mod table;
mod top;
mod touch;
mod units;
mod up;
mod why;
mod words;

use std::process::ExitCode;

use failure::Failure;

/// One subcommand.
struct Command {
    name: &'static str,
    /// What it does, for the list of commands.
    about: &'static str,
    /// Takes the words behind the name.
    run: fn(&[String]) -> Result<(), Failure>,
}

const fn command(
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
) -> Command {
    Command { name, about, run }
}

const COMMANDS: &[Command] = &[
    command("get", "write the value of a key", get::run),
    command("set", "store a value", set::run),
    command("delete", "delete keys", delete::run),
    command("incr", "count up", count::incr),
    command("decr", "count down", count::decr),
    command("touch", "give a key a new time to live", touch::run),
    command(
        "ring",
        "read keys, one a line, and print the node of each",
        ring::run,
    ),
    command("stats", "the nodes' statistics, side by side", stats::run),
    command("top", "what the nodes are doing now", top::run),
    command("hot", "the keys that are asked for most, now", hot::run),
    command("why", "why a key is not there", why::run),
    command(
        "doctor",
        "what is wrong with the nodes, and what helps",
        doctor::run,
    ),
    command(
        "record",
        "the last ten minutes of a node, second by second",
        record::run,
    ),
    command("copy", "fill nodes with what other nodes have", copy::run),
    command(
        "audit",
        "whether copies and regions have the same",
        audit::run,
    ),
    command(
        "relay",
        "carry changes of one region over to another",
        relay::run,
    ),
    command(
        "snapshot",
        "write what a node has into a file",
        snapshot::run,
    ),
    command("load", "fill nodes with what a file has", load::run),
    command(
        "nodes",
        "who is in a ring: health, version, share of the keys",
        nodes::run,
    ),
    command(
        "drain",
        "take a node out of a ring, its keys first",
        shift::drain::run,
    ),
    command(
        "rebalance",
        "fill a new node, then give it its share of the keys",
        shift::rebalance::run,
    ),
    command("cluster", "servers on this machine, for a try", up::run),
    command("ping", "which nodes answer, and how fast", ping::run),
    command(
        "routes",
        "a proxy's file from that of twemproxy or mcrouter",
        routes::run,
    ),
];

/// What a caller learns from the status.
const EXIT_STATUS: &str = "Exit status: 0 done; 1 it could not be done, or not all of it; 2 the words were wrong;\n\
    3 the key is not there (set --mode add: it is).\n";

fn main() -> ExitCode {
    let words: Vec<String> = match std::env::args_os()
        .skip(1)
        .map(|word| word.into_string())
        .collect()
    {
        Ok(words) => words,
        Err(word) => return report(&Failure::usage(format!("{} is not UTF-8", word.display()))),
    };
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn dispatch(words: &[String]) -> Result<(), Failure> {
    let (name, rest) = match words.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => {
            return Err(Failure::usage(
                "a command is missing; ketchctl --help lists them",
            ));
        }
    };
    match name {
        "-h" | "--help" | "help" => {
            print!("{}", help());
            Ok(())
        }
        "-V" | "--version" => {
            println!("ketchctl {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => (command.run)(rest),
            None => Err(Failure::usage(format!(
                "no command {name}; ketchctl --help lists them"
            ))),
        },
    }
}

fn help() -> String {
    let mut text = "usage: ketchctl COMMAND [options]\n\n".to_owned();
    for command in COMMANDS {
        text.push_str(&format!("  {:10} {}\n", command.name, command.about));
    }
    text.push_str("\nketchctl COMMAND --help shows the options of a command.\n\n");
    text.push_str(EXIT_STATUS);
    text
}

/// Prints it, if there is anything to print, and gives the exit status.
fn report(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Help(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Failure::Usage(text) => {
            eprintln!("ketchctl: {text}");
            ExitCode::from(2)
        }
        Failure::Failed(text) => {
            eprintln!("ketchctl: {text}");
            ExitCode::FAILURE
        }
        Failure::Told => ExitCode::FAILURE,
        Failure::Missed(text) => {
            eprintln!("ketchctl: {text}");
            ExitCode::from(3)
        }
        Failure::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Failure::Io(error) => {
            eprintln!("ketchctl: {error}");
            ExitCode::FAILURE
        }
    }
}
