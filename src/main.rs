//! The `ketch` program: options become settings, settings a server, and signals end it.
//!
//! Exit codes are memcached's: 0 after a signal or a printed text, 64 for options, 71 when the system refuses.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use ketch::server::Server;
use ketch::settings::{self, Settings, Start};
use ketch::sys::{self, Event, Fork, PidFile, Signals};
use log::LevelFilter;

/// An allocation that fails costs clients their connections, not everybody the server.
#[global_allocator]
static MEMORY: sys::Sparing = sys::Sparing;

const EX_USAGE: u8 = 64;
const EX_OSERR: u8 = 71;

fn main() -> ExitCode {
    let args = env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned());
    match settings::parse(args, &|name| env::var(name).ok(), sys::container()) {
        Ok(Start::Run(settings)) => {
            serve(*settings).unwrap_or_else(|reason| fail(&reason, EX_OSERR))
        }
        Ok(Start::Print(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(err) => fail(&err.to_string(), EX_USAGE),
    }
}

fn fail(reason: &str, code: u8) -> ExitCode {
    eprintln!("ketch: {reason}");
    ExitCode::from(code)
}

/// Runs the server until a signal ends it.
fn serve(mut settings: Settings) -> Result<ExitCode, String> {
    let mut background = None;
    // By the process id that the service manager knows, which a daemon does not keep.
    let handed_over = sys::handed_over().map_err(|err| format!("LISTEN_FDS: {err}"))?;
    let manager = sys::Manager::of_environment();
    if settings.daemon && manager.is_some() {
        let notice = "-d has no effect: who started the server keeps it in the background (NOTIFY_SOCKET is set)";
        settings.notices.push(notice.to_owned());
    } else if settings.daemon {
        match sys::daemonize().map_err(|err| format!("-d: cannot go to the background: {err}"))? {
            Fork::Parent { ready: true } => return Ok(ExitCode::SUCCESS),
            // The daemon has said why.
            Fork::Parent { ready: false } => return Ok(ExitCode::from(EX_OSERR)),
            Fork::Child(child) => background = Some(child),
        }
    }
    start_log(&settings);
    // A log in a place where root alone can make files is opened by root, any other by the user whom root becomes: another
    // could have put a link there.
    let roots_log = settings
        .log_file
        .as_deref()
        .filter(|path| sys::is_roots_own(path));
    let mut log_file = roots_log.map(open_log_file).transpose()?;
    raise_limits(&mut settings)?;
    let mut signals = Signals::new().map_err(|err| format!("signals: {err}"))?;

    // Ports first: those below 1024 are for root alone.
    let server = Server::bind(settings.clone(), handed_over).map_err(|err| err.to_string())?;
    sys::drop_root(settings.user.as_deref())?;
    if let (None, Some(path)) = (&log_file, &settings.log_file) {
        log_file = Some(open_log_file(path)?);
    }
    if settings.coredumps {
        warn_of("-r: no core files", sys::allow_coredumps());
    }
    let _pid_file = settings.pid_file.as_deref().and_then(|path| {
        let written = PidFile::write(path);
        let told = written.map_err(|err| io::Error::new(err.kind(), sys::why_not_made(path, &err)));
        warn_of(&format!("-P {}: not written", path.display()), told)
    });
    let running = server.start().map_err(|err| err.to_string())?;

    if let Some(file) = &log_file {
        warn_of("--logfile", sys::redirect_stderr(file));
    }
    if let Some(background) = background {
        warn_of(
            "-d",
            background.detach(log_file.is_some() || settings.verbosity > 0),
        );
    }
    let tell = |state| {
        if let Some(manager) = &manager {
            warn_of("NOTIFY_SOCKET", manager.tell(state));
        }
    };
    tell("READY=1");
    let graceful = loop {
        match signals.wait() {
            Event::Stop => break false,
            Event::StopGracefully => break true,
            Event::Reload => {
                let reopened = settings.log_file.as_deref().map(reopen_log_file);
                if !running.reload() && reopened.is_none() {
                    log::warn!("SIGHUP: there is nothing to read again");
                }
            }
        }
    };
    tell("STOPPING=1");
    running.stop(graceful);
    Ok(ExitCode::SUCCESS)
}

/// Goes on in the file that is now at the log's path, after the old one was moved away.
fn reopen_log_file(path: &Path) {
    let reopened = open_log_file(path)
        .and_then(|file| sys::redirect_stderr(&file).map_err(|err| err.to_string()));
    match reopened {
        // At a level that is always shown: it says why a file begins here.
        Ok(()) => log::warn!("SIGHUP: the log goes on in {}", path.display()),
        Err(reason) => log::warn!("SIGHUP: the log stays in the file it was: {reason}"),
    }
}

fn start_log(settings: &Settings) {
    let level = match settings.verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    // The logger lets everything through, so that `verbosity` can raise the level while the server runs.
    let mut logger = env_logger::Builder::new();
    logger.filter_level(LevelFilter::Trace);
    if settings.log_json {
        logger.format(|out, record| {
            let line = serde_json::json!({
                "time": out.timestamp_millis().to_string(),
                "level": record.level().as_str(),
                "target": record.target(),
                "message": record.args().to_string(),
            });
            writeln!(out, "{line}")
        });
    }
    logger.init();
    log::set_max_level(level);
    for notice in &settings.notices {
        log::warn!("{notice}");
    }
}

/// Opened at the start, but written to once clients can connect, so that a failing start is seen where it was tried.
fn open_log_file(path: &Path) -> Result<File, String> {
    sys::open_to_append(path).map_err(|err| {
        format!(
            "--logfile {}: {}",
            path.display(),
            sys::why_not_made(path, &err)
        )
    })
}

/// Raises the limits that the options need, and takes back what they ask for where that cannot be had.
fn raise_limits(settings: &mut Settings) -> Result<(), String> {
    let asked = settings.conns_max;
    let needed = (asked + settings.files_reserved()) as u64;
    if let Some(files) = warn_of("limit on open files", sys::raise_open_files(needed))
        && files < needed
    {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let Some(conns) = settings.conns_with(files) else {
            return Err(format!(
                "-c {asked}: the limit on open files is {files}, and the server itself needs as many; raise it \
                 (ulimit -n, LimitNOFILE=) or start as root"
            ));
        };
        settings.conns_short = Some(conns);
        log::warn!(
            "-c {asked}: needs {needed} open files, the limit is {files}: {conns} clients at one time; raise it \
             (ulimit -n, LimitNOFILE=) or start as root"
        );
    }
    let bytes = settings.memory_limit_bytes as u64;
    if let Some((limit, whose)) = sys::memory_limit().filter(|&(limit, _)| bytes >= limit) {
        log::warn!(
            "-m: {} MB for items, and {whose} {} MB in all: a full cache may be killed, or end in swap",
            bytes >> 20,
            limit >> 20
        );
    }
    if settings.lock_memory {
        let locked = sys::lock_memory(bytes, settings.user.as_deref());
        warn_of("-k: not all memory is locked", locked);
    }
    Ok(())
}

/// Logs an error that the server can live with.
fn warn_of<T>(what: &str, result: io::Result<T>) -> Option<T> {
    result.inspect_err(|err| log::warn!("{what}: {err}")).ok()
}
