//! The program: a mode from the command line, its result to the terminal and to files.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::Path;
use std::process::ExitCode;

use ketch_bench::options::{Mode, Options, usage};
use ketch_bench::run::Sample;
use ketch_bench::{fill, floor, html, idle, replay, report, run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match Options::parse(&words) {
        Ok(None) => {
            print!("{}", usage());
            return ExitCode::SUCCESS;
        }
        Ok(Some(options)) => perform(&options),
        Err(error) => Err(error),
    };
    match result {
        Ok(0) => ExitCode::SUCCESS,
        // The errors are in the result already.
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ketch-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does it and returns the number of errors in replies.
fn perform(options: &Options) -> Result<u64, String> {
    let plan = &options.plan;
    let progress = |sample: &Sample| {
        if !options.quiet {
            eprintln!("{}", report::progress(sample));
        }
    };
    match options.mode {
        Mode::Run => {
            if options.fill {
                let refused = fill::store_all(plan, progress)?.tally.refused;
                if refused > 0 {
                    eprintln!("ketch-bench: {refused} stores were refused while filling");
                }
            }
            let outcome = run::run(plan, progress)?;
            show(
                options,
                &report::human(options, &outcome),
                &report::json(options, &outcome),
            )?;
            if let Some(path) = &options.html {
                write(path, &html::page(options, &outcome))?;
            }
            Ok(outcome.tally.errors())
        }
        Mode::Fill => {
            let residents = fill::fill(plan, progress)?;
            show(options, &residents.human(), &residents.json(options))?;
            Ok(residents.errors)
        }
        Mode::Replay => {
            let path = options
                .trace
                .as_deref()
                .expect("the options of this mode have a trace");
            let replayed = replay::replay(plan, replay::ids(open(path)?))?;
            show(options, &replayed.human(), &replayed.json(options))?;
            Ok(replayed.tally.errors())
        }
        Mode::Idle => {
            let held = idle::hold(plan)?;
            show(options, &held.human(), &held.json(options))?;
            Ok(0)
        }
        Mode::Floor => {
            let floor = floor::Floor::bind(plan)?;
            let addr = floor.addr().map_err(|error| error.to_string())?;
            println!("floor for {} on {addr}", options.workload_name);
            floor.serve().map_err(|error| error.to_string())?;
            Ok(0)
        }
    }
}

fn show(options: &Options, human: &str, json: &str) -> Result<(), String> {
    match &options.json {
        Some(path) if path == Path::new("-") => print!("{json}"),
        Some(path) => {
            write(path, json)?;
            print!("{human}");
        }
        None => print!("{human}"),
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, String> {
    if path == Path::new("-") {
        return Ok(Box::new(stdin().lock()));
    }
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}
