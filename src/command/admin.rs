//! Commands about the server and not about a key. They are rare: clarity before speed.

use std::sync::atomic::Ordering::Relaxed;

use log::LevelFilter;
use protocol::{
    Admin, AdminVerb, Args, BinaryAdmin, BinaryVerb, ErrorLine, Exptime, Status, binary, reply,
};

use super::config;
use super::dump::Dump;
use super::numbers::{milli, number};
use super::output::Output;
use super::owed::AdminOutcome;
use super::stats;
use super::watch;
use crate::cache::{ClassId, ClassMask, MoveError};
use crate::events::Cause;
use crate::knobs::{Knob, OFF, in_milli};
use crate::settings::MEMCACHED_VERSION;
use crate::state::{Ctx, NotBegun, StopMode};

/// The highest level `verbosity` sets.
const VERBOSITY_MAX: u32 = 2;
/// The least `cache_memlimit`, in megabytes.
const MEMLIMIT_MB_MIN: u32 = 8;
/// Above this `cache_memlimit` was meant in bytes.
const MEMLIMIT_MB_MAX: u32 = 1_000_000_000;
/// Together HOT and WARM leave at least a fifth to COLD.
const HOT_WARM_PCT_MAX: u32 = 80;

/// Words behind `flush_all`: a delay and what was meant for `noreply`.
const FLUSH_WORDS_MAX: usize = 2;

/// `OK`, or why not.
type Answer = Result<(), ErrorLine>;

/// Executes, and answers.
pub(super) fn execute<'c>(ctx: Ctx<'c>, request: &Admin<'_>, out: &mut Output<'c>) -> AdminOutcome {
    let words: Vec<&[u8]> = request.args.iter().collect();
    let answer = match request.verb {
        AdminVerb::Quit => return AdminOutcome::Close,
        AdminVerb::Stats => return stats::execute(ctx, request.args, out),
        AdminVerb::Version => {
            // Even with `noreply`, as memcached does.
            reply::version(&mut out.buf, MEMCACHED_VERSION);
            return AdminOutcome::Done;
        }
        AdminVerb::Shutdown => match shutdown(ctx, &words) {
            Ok(mode) => {
                (ctx.shared.stop)(mode);
                return AdminOutcome::Close;
            }
            Err(error) => Err(error),
        },
        AdminVerb::LruCrawler => match lru_crawler(ctx, &words) {
            Ok(Some(dump)) => return AdminOutcome::Dump(dump),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        },
        AdminVerb::FlushAll => flush_all(ctx, &words),
        AdminVerb::Verbosity => verbosity(ctx, &words),
        AdminVerb::CacheMemlimit => cache_memlimit(ctx, &words),
        AdminVerb::Slabs => slabs(ctx, &words),
        AdminVerb::Lru => lru(ctx, &words),
        AdminVerb::DebugTime => debugtime(ctx, &words),
        AdminVerb::Watch => return watch::execute(ctx, &words, out),
        AdminVerb::Config => {
            config::execute(ctx, &words, request.noreply, out);
            return AdminOutcome::Done;
        }
        AdminVerb::RefreshCerts => match refresh_certs(ctx) {
            Ok(()) => Ok(()),
            Err(reason) => {
                if !request.noreply {
                    out.bytes(reason.as_bytes());
                    out.bytes(b"\r\n");
                }
                return AdminOutcome::Done;
            }
        },
        AdminVerb::Snapshot => {
            let answer: &[u8] = match ctx.shared.saving.ask() {
                Ok(()) => reply::OK,
                Err(NotBegun::Running) => b"BUSY a snapshot is being written\r\n",
                Err(NotBegun::NotEnabled) => {
                    b"CLIENT_ERROR snapshots are off, start the server with -o snapshot=FILE\r\n"
                }
            };
            if !request.noreply {
                out.bytes(answer);
            }
            return AdminOutcome::Done;
        }
        // A memcached that is built without storage on disk does not know it.
        AdminVerb::Extstore => Err(ErrorLine::Error),
    };
    if !request.noreply {
        match answer {
            Ok(()) => out.bytes(reply::OK),
            Err(error) => out.error(error),
        }
    }
    AdminOutcome::Done
}

/// Whether the command is for connections alone: it answers for as long as they last, or it changes the server or what
/// all clients find in it. Nobody can tell who has sent a datagram, so there is only what shows.
pub(super) fn needs_stream(request: &Admin<'_>) -> bool {
    let first = request.args.iter().next();
    match request.verb {
        AdminVerb::Version | AdminVerb::Quit => false,
        AdminVerb::Stats => first.is_some_and(stats::changes),
        AdminVerb::Config => first != Some(b"get"),
        AdminVerb::FlushAll
        | AdminVerb::Verbosity
        | AdminVerb::Shutdown
        | AdminVerb::Watch
        | AdminVerb::CacheMemlimit
        | AdminVerb::RefreshCerts
        | AdminVerb::Snapshot
        | AdminVerb::Slabs
        | AdminVerb::Lru
        | AdminVerb::LruCrawler
        | AdminVerb::Extstore
        | AdminVerb::DebugTime => true,
    }
}

/// The same of what is binary.
pub(super) fn needs_stream_binary(request: &BinaryAdmin<'_>) -> bool {
    match request.verb {
        BinaryVerb::Noop | BinaryVerb::Version | BinaryVerb::Quit | BinaryVerb::ConfigGet(_) => {
            false
        }
        BinaryVerb::Stat(group) => Args(group).iter().next().is_some_and(stats::changes),
        BinaryVerb::Flush(_) | BinaryVerb::Verbosity(_) => true,
    }
}

/// Executes what is binary and about no key, and answers.
pub(super) fn execute_binary<'c>(
    ctx: Ctx<'c>,
    request: &BinaryAdmin<'_>,
    out: &mut Output<'c>,
) -> AdminOutcome {
    let head = request.head;
    let answer = match request.verb {
        BinaryVerb::Version => {
            let version = MEMCACHED_VERSION.as_bytes();
            binary::text(&mut out.buf, head, Status::Ok, version);
            return AdminOutcome::Done;
        }
        BinaryVerb::Stat(group) => return stats::execute_binary(ctx, head, group, out),
        BinaryVerb::ConfigGet(name) => {
            config::get_binary(ctx, head, name, out);
            return AdminOutcome::Done;
        }
        BinaryVerb::Noop | BinaryVerb::Quit => Ok(()),
        // memcached counts what it refuses in text alone.
        BinaryVerb::Flush(_) if !ctx.shared.settings.flush_enabled => {
            Err(ErrorLine::FlushNotAllowed)
        }
        BinaryVerb::Flush(when) => flush(ctx, Ok(when)),
        BinaryVerb::Verbosity(level) => {
            set_verbosity(ctx, level);
            Ok(())
        }
    };
    match answer {
        Ok(()) if head.quiet => {}
        Ok(()) => binary::ok(&mut out.buf, head, 0),
        Err(error) => binary::error(&mut out.buf, head, error.into()),
    }
    if request.verb == BinaryVerb::Quit {
        AdminOutcome::Close
    } else {
        AdminOutcome::Done
    }
}

/// `refresh_certs`; what fails is told in a line of memcached's, without the usual words before it.
fn refresh_certs(ctx: Ctx<'_>) -> Result<(), String> {
    let certs = ctx.shared.certs.as_ref().ok_or("Error TLS not enabled")?;
    certs
        .refresh(ctx.now)
        .inspect_err(|reason| log::warn!("refresh_certs: {reason}"))
}

/// `flush_all [DELAY]`.
fn flush_all(ctx: Ctx<'_>, words: &[&[u8]]) -> Answer {
    if words.len() > FLUSH_WORDS_MAX {
        return Err(ErrorLine::Error);
    }
    let delay = match words.first() {
        Some(word) => number::<i32>(word).ok_or(ErrorLine::InvalidExptime),
        None => Ok(0),
    };
    flush(ctx, delay.map(|delay| Exptime::from(i64::from(delay))))
}

/// Flushes at a moment, if that is one and it is allowed.
fn flush(ctx: Ctx<'_>, when: Result<Exptime, ErrorLine>) -> Answer {
    ctx.stats.general.cmd_flush.inc();
    if !ctx.shared.settings.flush_enabled {
        return Err(ErrorLine::FlushNotAllowed);
    }
    let when = ctx.expires_at(when?);
    // A moment that is over is now; 0, which as an expiry is never, as well.
    if when > ctx.now {
        ctx.cache.flush_at(when, ctx.at(Cause::FlushAll));
    } else {
        ctx.cache.flush_now(ctx.at(Cause::FlushAll));
    }
    Ok(())
}

/// `verbosity LEVEL`.
fn verbosity(ctx: Ctx<'_>, words: &[&[u8]]) -> Answer {
    let level: u32 = words
        .first()
        .and_then(|word| number(word))
        .ok_or(ErrorLine::BadFormat)?;
    set_verbosity(ctx, level);
    Ok(())
}

fn set_verbosity(ctx: Ctx<'_>, level: u32) {
    let level = level.min(VERBOSITY_MAX);
    ctx.shared.verbosity.store(level.into(), Relaxed);
    log::set_max_level(match level {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    });
}

/// `shutdown [graceful]`.
fn shutdown(ctx: Ctx<'_>, words: &[&[u8]]) -> Result<StopMode, ErrorLine> {
    if !ctx.shared.settings.shutdown_command {
        return Err(ErrorLine::ShutdownNotEnabled);
    }
    match words {
        [] => Ok(StopMode::Now),
        [b"graceful"] => Ok(StopMode::Graceful),
        _ => Err(ErrorLine::ShutdownMode),
    }
}

/// `cache_memlimit MEGABYTES`.
fn cache_memlimit(ctx: Ctx<'_>, words: &[&[u8]]) -> Answer {
    let megabytes = words
        .first()
        .and_then(|word| number(word))
        .ok_or(ErrorLine::Error)?;
    match megabytes {
        ..MEMLIMIT_MB_MIN => return Err(ErrorLine::MemlimitTooSmall),
        MEMLIMIT_MB_MIN..=MEMLIMIT_MB_MAX => {}
        _ => return Err(ErrorLine::MemlimitInMegabytes),
    }
    if !ctx.cache.set_limit_bytes((megabytes as usize) << 20) {
        return Err(ErrorLine::MemlimitUnable);
    }
    log::info!("cache_memlimit: {megabytes} MB");
    Ok(())
}

/// Turns a knob to a whole number; one that its row does not take is `refused`.
fn turn(ctx: Ctx<'_>, knob: Knob, word: &[u8], refused: ErrorLine) -> Answer {
    let number = number(word).ok_or(ErrorLine::BadFormat)?;
    if !knob.row().takes(number) {
        return Err(refused);
    }
    ctx.cache.tuning.set(knob, number);
    Ok(())
}

/// `slabs reassign SOURCE DESTINATION`, `slabs automove ..`.
fn slabs(ctx: Ctx<'_>, words: &[&[u8]]) -> Answer {
    let tuning = &ctx.cache.tuning;
    match words {
        [b"reassign", source, destination] => {
            if !tuning.is_on(Knob::SlabReassign) {
                return Err(ErrorLine::ReassignDisabled);
            }
            let class = |word| number(word).ok_or(ErrorLine::BadFormat);
            ctx.cache
                .request_page_move(class(source)?, class(destination)?)
                .map_err(|error| match error {
                    MoveError::Busy => ErrorLine::ReassignBusy,
                    MoveError::BadClass => ErrorLine::ReassignBadClass,
                    MoveError::NoSpare => ErrorLine::ReassignNoSpare,
                    MoveError::Same => ErrorLine::ReassignSame,
                })
        }
        // Any ratio will do here, as in memcached.
        [b"automove", b"ratio", rest @ ..] => {
            let milli = rest.first().and_then(|word| milli(word));
            tuning.set(Knob::SlabAutomoveRatio, milli.ok_or(ErrorLine::Error)?);
            Ok(())
        }
        [b"automove", b"freeratio", rest @ ..] => {
            let milli = rest.first().and_then(|word| milli(word));
            tuning.set(Knob::SlabAutomoveFreeratio, milli.ok_or(ErrorLine::Error)?);
            Ok(())
        }
        [b"automove", b"window", rest @ ..] => {
            let window = rest.first().copied().unwrap_or_default();
            turn(
                ctx,
                Knob::SlabAutomoveWindow,
                window,
                ErrorLine::AutomoveWindow,
            )
        }
        [b"automove", level, ..] => turn(ctx, Knob::SlabAutomove, level, ErrorLine::Error),
        _ => Err(ErrorLine::Error),
    }
}

/// `lru tune HOT WARM HOT_FACTOR WARM_FACTOR`, `lru mode flat|segmented`, `lru temp_ttl SECONDS`.
fn lru(ctx: Ctx<'_>, words: &[&[u8]]) -> Answer {
    let tuning = &ctx.cache.tuning;
    let maintained = tuning.is_on(Knob::LruMaintainer);
    match words {
        [b"tune", hot, warm, hot_factor, warm_factor, ..] => {
            let hot: u32 = number(hot).ok_or(ErrorLine::Error)?;
            let warm: u32 = number(warm).ok_or(ErrorLine::Error)?;
            let hot_factor: f64 = number(hot_factor).ok_or(ErrorLine::Error)?;
            let warm_factor: f64 = number(warm_factor).ok_or(ErrorLine::Error)?;
            if hot.saturating_add(warm) > HOT_WARM_PCT_MAX {
                return Err(ErrorLine::LruPercents);
            }
            if hot_factor <= 0.0 || warm_factor <= 0.0 {
                return Err(ErrorLine::LruFactors);
            }
            tuning.set(Knob::HotLruPct, hot);
            tuning.set(Knob::WarmLruPct, warm);
            tuning.set(Knob::HotMaxFactor, in_milli(hot_factor));
            tuning.set(Knob::WarmMaxFactor, in_milli(warm_factor));
            Ok(())
        }
        [b"mode", mode @ (b"flat" | b"segmented"), ..] if maintained => {
            tuning.set(Knob::LruSegmented, u32::from(*mode == b"segmented"));
            Ok(())
        }
        [b"temp_ttl", seconds, ..] if maintained => {
            let seconds: i32 = number(seconds).ok_or(ErrorLine::Error)?;
            tuning.set(Knob::TemporaryTtl, u32::try_from(seconds).unwrap_or(OFF));
            Ok(())
        }
        _ => Err(ErrorLine::Error),
    }
}

/// `lru_crawler ..`; a dump if that is what it asks for.
fn lru_crawler(ctx: Ctx<'_>, words: &[&[u8]]) -> Result<Option<Dump>, ErrorLine> {
    let tuning = &ctx.cache.tuning;
    let runs = tuning.is_on(Knob::LruCrawler);
    let dump_enabled = ctx.shared.settings.dump_enabled;
    match words {
        [b"enable"] if runs => return Err(ErrorLine::CrawlerStart),
        [b"enable"] => tuning.set(Knob::LruCrawler, 1),
        [b"disable"] => tuning.set(Knob::LruCrawler, 0),
        [b"sleep", micros] => turn(
            ctx,
            Knob::LruCrawlerSleep,
            micros,
            ErrorLine::CrawlerSleepTooLong,
        )?,
        [b"tocrawl", items] => {
            turn(ctx, Knob::LruCrawlerTocrawl, items, ErrorLine::BadFormat)?;
        }
        [b"crawl" | b"metadump" | b"mgdump", _] if !runs => return Err(ErrorLine::CrawlerDisabled),
        [b"crawl", which] => ctx.cache.request_crawl(classes(which)?),
        [b"metadump", _] if !dump_enabled => return Err(ErrorLine::MetadumpNotAllowed),
        [b"metadump", which] => return Ok(Some(Dump::metadata(classes(which)?))),
        [b"mgdump", _] if !dump_enabled => return Err(ErrorLine::KeyDumpNotAllowed),
        [b"mgdump", which] => return Ok(Some(Dump::keys(classes(which)?))),
        _ => return Err(ErrorLine::Error),
    }
    Ok(None)
}

/// `all`, `hash` (memcached's other way to walk, here the same) or class numbers with commas between.
fn classes(which: &[u8]) -> Result<ClassMask, ErrorLine> {
    if matches!(which, b"all" | b"hash") {
        return Ok(ClassMask::ALL);
    }
    let ids = which
        .split(|&byte| byte == b',')
        .filter(|id| !id.is_empty());
    ids.map(|id| {
        number(id.strip_prefix(b"+").unwrap_or(id))
            .and_then(ClassId::new)
            .ok_or(ErrorLine::CrawlerBadClass)
    })
    .try_fold(ClassMask::NONE, |mask, class| Ok(mask.with(class?)))
}

/// `debugtime p|r|SECONDS`: stops the clock, lets it go on, moves it. For tests.
fn debugtime(ctx: Ctx<'_>, words: &[&[u8]]) -> Answer {
    if !ctx.shared.settings.debugtime {
        return Err(ErrorLine::Error);
    }
    let clock = &ctx.shared.clock;
    match words {
        [b"p", ..] => clock.pause(true),
        [b"r", ..] => clock.pause(false),
        [seconds, ..] => clock.shift(number::<i32>(seconds).ok_or(ErrorLine::Error)?.into()),
        [] => return Err(ErrorLine::Error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Server;
    use crate::settings::Settings;

    #[test]
    fn vectors() {
        let server = Server::start();
        server.check(&[
            ("version", &format!("VERSION {MEMCACHED_VERSION}|")),
            ("verbosity", "CLIENT_ERROR bad command line format|"),
            ("cache_memlimit", "ERROR|"),
            (
                "cache_memlimit 7",
                "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m|",
            ),
            (
                "cache_memlimit 1000000001",
                "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes|",
            ),
            (
                "cache_memlimit 1000000000",
                "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust|",
            ),
            ("cache_memlimit 20", "OK|"),
            ("cache_memlimit 16 noreply", ""),
            ("slabs reassign 1 2 3", "ERROR|"),
            (
                "slabs reassign a 2",
                "CLIENT_ERROR bad command line format|",
            ),
            (
                "slabs automove window 2",
                "CLIENT_ERROR automove window too low or too high|",
            ),
            ("slabs automove window 30", "OK|"),
            ("slabs automove ratio -1", "ERROR|"),
            (
                "lru tune 4294967295 4294967295 1 1",
                "ERROR hot and warm pcts must not exceed 80|",
            ),
            (
                "lru tune 10 20 0 1",
                "ERROR hot/warm age factors must be greater than 0|",
            ),
            ("lru tune 10 20 inf 1", "ERROR|"),
            ("lru tune 10 20 0.3 1.5", "OK|"),
            ("lru_crawler crawl 1,2,63", "OK|"),
            ("lru_crawler crawl +1", "OK|"),
            ("lru_crawler crawl 0", "BADCLASS invalid class id|"),
            ("lru_crawler crawl 256", "BADCLASS invalid class id|"),
            ("lru_crawler metadump 1,x", "BADCLASS invalid class id|"),
            (
                "lru_crawler enable",
                "ERROR failed to start lru crawler thread|",
            ),
            ("lru_crawler disable", "OK|"),
            (
                "lru_crawler mgdump all",
                "CLIENT_ERROR lru crawler disabled|",
            ),
            ("lru_crawler enable", "OK|"),
            ("watch nothing", "ERROR|"),
            ("refresh_certs", "Error TLS not enabled|"),
            ("extstore item_size 5", "ERROR|"),
            ("debugtime 5", "ERROR|"),
            ("shutdown", "SERVER_ERROR: shutdown not enabled|"),
            ("quit|version", ""),
        ]);
        let tuning = &server.shared.cache.tuning;
        assert_eq!(tuning.get(Knob::HotMaxFactor), 300);
        assert_eq!(tuning.get(Knob::WarmLruPct), 20);
        assert_eq!(server.shared.cache.limit_bytes(), 16 << 20);
    }

    #[test]
    fn a_flush_ends_what_is_there() {
        let server = Server::start();
        server.check(&[
            ("set a 0 0 1|x|flush_all|get a", "STORED|OK|END|"),
            ("set a 0 0 1|x|flush_all noreply|get a", "STORED|END|"),
            ("set a 0 0 1|x|flush_all -1|get a", "STORED|OK|END|"),
            ("flush_all x", "CLIENT_ERROR invalid exptime argument|"),
            (
                "set a 0 0 1|x|flush_all 10|get a",
                "STORED|OK|VALUE a 0 1|x|END|",
            ),
        ]);
        server.pass(9);
        server.check(&[("mg a u", "HD|")]);
        server.pass(1);
        server.check(&[
            ("get a", "END|"),
            ("set a 0 0 1|x|get a", "STORED|VALUE a 0 1|x|END|"),
        ]);
        let past = server.shared.clock.unix(server.shared.clock.now()) - 1;
        server.check(&[(&format!("flush_all {past}"), "OK|"), ("get a", "END|")]);
        assert_eq!(server.shared.stats.read().general.cmd_flush, 6);
    }

    #[test]
    fn what_is_forbidden() {
        let server = Server::with(Settings {
            flush_enabled: false,
            dump_enabled: false,
            ..Settings::default()
        });
        server.check(&[
            ("flush_all", "CLIENT_ERROR flush_all not allowed|"),
            ("flush_all noreply", ""),
            ("lru_crawler metadump all", "ERROR metadump not allowed|"),
            ("lru_crawler mgdump all", "ERROR key dump not allowed|"),
            (
                "stats cachedump 1 1",
                "CLIENT_ERROR stats cachedump not allowed|",
            ),
            ("stats detail on", "CLIENT_ERROR stats detail not allowed|"),
        ]);
    }

    #[test]
    fn the_clock_is_moved_where_it_is_allowed() {
        let server = Server::with(Settings {
            debugtime: true,
            ..Settings::default()
        });
        let before = server.shared.clock.now();
        server.check(&[
            ("debugtime", "ERROR|"),
            ("debugtime x", "ERROR|"),
            ("debugtime p", "OK|"),
            ("debugtime 60", "OK|"),
        ]);
        assert_eq!(server.shared.clock.now().since(before), 60);
    }

    #[test]
    fn shutdown_stops_the_server_and_closes() {
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
        static STOPS: AtomicU32 = AtomicU32::new(0);
        let mut server = Server::with(Settings {
            shutdown_command: true,
            ..Settings::default()
        });
        server.shared.stop = |mode| {
            STOPS.fetch_add(if mode == StopMode::Graceful { 100 } else { 1 }, SeqCst);
        };
        server.check(&[
            ("shutdown now", "CLIENT_ERROR invalid shutdown mode|"),
            ("shutdown|version", ""),
            ("shutdown graceful", ""),
        ]);
        assert_eq!(STOPS.load(SeqCst), 101);
    }
}
