//! The `ketch` program: options become settings, settings a server, and signals end it.
//!
//! Exit codes are memcached's: 0 after a signal or a printed text, 64 for options, 71 when the system refuses.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use ketch::handover::{self, Predecessor, Successor};
use ketch::server::{Handed, Server};
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
    // Before a daemon leaves its directory, and before the file may be replaced by a newer one.
    let program = Program {
        path: env::current_exe(),
        dir: env::current_dir(),
    };
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
    let predecessor = match settings.takeover {
        true => Predecessor::find(&settings)?,
        false => None,
    };
    if settings.takeover && predecessor.is_none() {
        log::warn!("--takeover: no server answers at these addresses: starting without items");
    }
    let takes_over = predecessor.is_some();
    let server = Server::bind(settings.clone(), handed_over, predecessor)?;
    sys::drop_root(settings.user.as_deref())?;
    if let (None, Some(path)) = (&log_file, &settings.log_file) {
        log_file = Some(open_log_file(path)?);
    }
    if settings.coredumps {
        warn_of("-r: no core files", sys::allow_coredumps());
    }
    let mut pid_file = None;
    if !takes_over {
        pid_file = write_pid_file(&settings, false);
    }
    let mut running = server.start()?;
    if takes_over {
        // Not before: the file of the server that goes on where this one fails stays as it is.
        pid_file = write_pid_file(&settings, true);
    }

    if let Some(file) = &log_file {
        warn_of("--logfile", sys::redirect_stderr(file));
    }
    if let Some(background) = background {
        warn_of(
            "-d",
            background.detach(log_file.is_some() || settings.verbosity > 0),
        );
    }
    let tell = |state: &str| {
        if let Some(manager) = &manager {
            warn_of("NOTIFY_SOCKET", manager.tell(state));
        }
    };
    tell("READY=1");
    if let (Some(manager), Some(memory)) = (&manager, running.unnamed_memory()) {
        warn_of("NOTIFY_SOCKET", manager.keep(memory));
    }
    let (tasks, inbox) = mpsc::channel();
    let doorbell = running.doorbell();
    let address = doorbell
        .as_ref()
        .map(|(doorbell, _)| doorbell.address().to_owned());
    let knocked = tasks.clone();
    let begun = spawn("signals", move || {
        while tasks.send(Task::Event(signals.wait())).is_ok() {}
    });
    begun.and_then(|()| match doorbell {
        Some((doorbell, estate)) => spawn("doorbell", move || {
            doorbell.answer(&estate, |successor| {
                let (serves_on, told) = mpsc::sync_channel(0);
                // Who is there no more needs nobody to follow.
                if knocked.send(Task::HandOver(successor, serves_on)).is_ok() {
                    let _ = told.recv();
                }
            });
        }),
        None => Ok(()),
    })?;
    let graceful = loop {
        match inbox.recv().map_err(|_| "nobody tells of signals")? {
            Task::Event(Event::Stop) => break false,
            Task::Event(Event::StopGracefully) => break true,
            Task::Event(Event::Reload) => {
                let reopened = settings.log_file.as_deref().map(reopen_log_file);
                if !running.reload() && reopened.is_none() {
                    log::warn!("SIGHUP: there is nothing to read again");
                }
            }
            Task::Event(Event::TakeOver) => match &address {
                Some(address) => launch(&program, address),
                None => log::warn!("SIGUSR2: no other process can take over"),
            },
            // The second is dropped when this process serves on: then the next may try.
            Task::HandOver(successor, _serves_on) => {
                let pid = successor.pid();
                match running.hand_over(successor)? {
                    Handed::Over => {
                        log::info!("process {pid} has taken over");
                        tell(&format!("MAINPID={pid}"));
                        // Nothing is put away: all of it is the other's.
                        process::exit(0);
                    }
                    Handed::Back(back, reason) => {
                        log::error!("takeover: {reason}: this process serves on");
                        running = *back;
                    }
                }
            }
        }
    };
    tell("STOPPING=1");
    running.stop(graceful);
    drop(pid_file);
    Ok(ExitCode::SUCCESS)
}

/// What the main thread is to do.
enum Task {
    Event(Event),
    HandOver(Successor, SyncSender<()>),
}

/// The program and the directory as they were at the start.
struct Program {
    path: io::Result<PathBuf>,
    dir: io::Result<PathBuf>,
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(work);
    spawned
        .map(drop)
        .map_err(|error| format!("cannot start: {error}"))
}

/// Has the program take over from this process, and tells what comes of that if nothing does.
fn launch(program: &Program, address: &str) {
    let launched = match (&program.path, &program.dir) {
        (Ok(path), Ok(dir)) => handover::launch(path, dir, address),
        (Err(error), _) | (_, Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
    };
    let waited = launched
        .map_err(|error| error.to_string())
        .and_then(|mut child| {
            log::info!("SIGUSR2: process {} is to take over", child.id());
            // Where it takes over, this process ends before it does.
            spawn("successor", move || {
                if let Ok(status) = child.wait() {
                    log::warn!("SIGUSR2: process {} has ended: {status}", child.id());
                }
            })
        });
    if let Err(reason) = waited {
        log::error!("SIGUSR2: the program cannot be started: {reason}");
    }
}

fn write_pid_file(settings: &Settings, takes_over: bool) -> Option<PidFile> {
    let path = settings.pid_file.as_deref()?;
    let written = PidFile::write(path, takes_over);
    let told = written.map_err(|err| io::Error::new(err.kind(), sys::why_not_made(path, &err)));
    warn_of(&format!("-P {}: not written", path.display()), told)
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
