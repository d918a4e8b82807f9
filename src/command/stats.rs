//! `stats`: the words, what they do, and how a report is answered. What the reports say: [`crate::report`].

use protocol::reply::{self, RESET};
use protocol::{Args, BinaryHead, ErrorLine, Status, binary};

use super::dump::Dump;
use super::numbers::number;
use super::output::Output;
use super::owed::AdminOutcome;
use super::report::{self, Running};
use crate::cache::{ClassId, ClassMask};
use crate::report::{Insight, Report, Value, why};
use crate::state::Ctx;

/// `stats [GROUP ..]`. What grows with what the server holds is answered in steps.
///
/// The longer names may be cut short, as in memcached: the first that begins with the word is meant.
pub(super) fn execute(ctx: Ctx<'_>, args: Args<'_>, out: &mut Output<'_>) -> AdminOutcome {
    let mut words = args.iter();
    let Some(group) = words.next() else {
        return show(ctx, Report::general(), None, out);
    };
    if let Some(insight) = Insight::of_word(group) {
        // `stats misses KEY` asks of one key.
        let key = words.next().filter(|_| insight == Insight::Misses);
        if let Some(key) = key {
            report::stat(None, "reason", Value::Text(why(ctx, key)), out);
            report::end(None, out);
            return AdminOutcome::Done;
        }
        return later(Report::insight(insight), None);
    }
    match group {
        b"record" => later(Report::record(), None),
        b"restart" => show(ctx, Report::restart(), None, out),
        b"proxy" => show(ctx, Report::proxy(), None, out),
        b"items" => later(Report::items(), None),
        b"slabs" => later(Report::slabs(), None),
        b"sizes" => sizes(ctx, None, out),
        _ if is_short_for(group, RESET_GROUP) => {
            ctx.shared.reset_counts();
            out.bytes(RESET);
            AdminOutcome::Done
        }
        _ if is_short_for(group, DETAIL_GROUP) => {
            let detailed = detail(ctx, words.next());
            answer(detailed.map(|dump| dump.map(AdminOutcome::Dump)), out)
        }
        _ if b"settings".starts_with(group) => show(ctx, Report::settings(), None, out),
        _ if b"cachedump".starts_with(group) => {
            let dump = cachedump(ctx, words.next(), words.next());
            answer(dump.map(|dump| Some(AdminOutcome::Dump(dump))), out)
        }
        _ if b"conns".starts_with(group) => later(Report::conns(), None),
        _ => answer(Err(ErrorLine::Error), out),
    }
}

/// Answers what is done or cannot be; the rest answers later.
fn answer(outcome: Result<Option<AdminOutcome>, ErrorLine>, out: &mut Output<'_>) -> AdminOutcome {
    match outcome {
        Ok(Some(outcome)) => return outcome,
        Ok(None) => out.bytes(reply::OK),
        Err(error) => out.error(error),
    }
    AdminOutcome::Done
}

/// A report of one step, at once.
fn show(
    ctx: Ctx<'_>,
    report: Report,
    binary: Option<BinaryHead>,
    out: &mut Output<'_>,
) -> AdminOutcome {
    Running::new(report, binary).step(ctx, out);
    AdminOutcome::Done
}

/// A report of many steps, as the output is taken.
fn later(report: Report, binary: Option<BinaryHead>) -> AdminOutcome {
    AdminOutcome::Report(Running::new(report, binary))
}

/// `stats sizes`.
fn sizes(ctx: Ctx<'_>, binary: Option<BinaryHead>, out: &mut Output<'_>) -> AdminOutcome {
    if ctx.shared.settings.track_sizes {
        return AdminOutcome::Dump(Dump::sizes(binary));
    }
    report::stat(binary, "sizes_status", Value::Text("disabled"), out);
    report::end(binary, out);
    AdminOutcome::Done
}

/// The groups that are commands.
const RESET_GROUP: &[u8] = b"reset";
const DETAIL_GROUP: &[u8] = b"detail";

fn is_short_for(word: &[u8], group: &[u8]) -> bool {
    group.starts_with(word)
}

/// Whether `stats` of this group does something, rather than show something.
pub(super) fn changes(group: &[u8]) -> bool {
    is_short_for(group, RESET_GROUP) || is_short_for(group, DETAIL_GROUP)
}

/// Binary `stat`: the same figures, each in a packet.
///
/// Of the groups memcached's binary protocol knows, and `conns`; whole names only. A dump is never of lines but `sizes`.
pub(super) fn execute_binary(
    ctx: Ctx<'_>,
    head: BinaryHead,
    group: &[u8],
    out: &mut Output<'_>,
) -> AdminOutcome {
    let binary = Some(head);
    if let Some(insight) = Insight::of_word(group) {
        return later(Report::insight(insight), binary);
    }
    match group {
        b"detail dump" | b"detail on" | b"detail off" if !ctx.shared.settings.dump_enabled => {
            binary::error(&mut out.buf, head, Status::AuthError);
            return AdminOutcome::Done;
        }
        b"detail dump" => return AdminOutcome::Dump(Dump::prefixes(binary)),
        b"sizes" => return sizes(ctx, binary, out),
        b"record" => return later(Report::record(), binary),
        b"restart" => return show(ctx, Report::restart(), binary, out),
        b"proxy" => return show(ctx, Report::proxy(), binary, out),
        b"items" => return later(Report::items(), binary),
        b"slabs" => return later(Report::slabs(), binary),
        b"conns" => return later(Report::conns(), binary),
        b"" => return show(ctx, Report::general(), binary, out),
        b"settings" => return show(ctx, Report::settings(), binary, out),
        b"reset" => ctx.shared.reset_counts(),
        b"detail on" => ctx.shared.prefixes.enable(true),
        b"detail off" => ctx.shared.prefixes.enable(false),
        _ => {
            binary::error(&mut out.buf, head, Status::NotFound);
            return AdminOutcome::Done;
        }
    }
    report::end(binary, out);
    AdminOutcome::Done
}

/// `stats detail on|off|dump`; the dump if that is asked for.
fn detail(ctx: Ctx<'_>, word: Option<&[u8]>) -> Result<Option<Dump>, ErrorLine> {
    if !ctx.shared.settings.dump_enabled {
        return Err(ErrorLine::StatsDetailNotAllowed);
    }
    let prefixes = &ctx.shared.prefixes;
    match word {
        Some(word) if b"on".starts_with(word) => prefixes.enable(true),
        Some(word) if b"off".starts_with(word) => prefixes.enable(false),
        Some(word) if b"dump".starts_with(word) => return Ok(Some(Dump::prefixes(None))),
        _ => return Err(ErrorLine::StatsDetailUsage),
    }
    Ok(None)
}

/// The last slab class that memcached has. Tools that go through all classes (libmemcached's memcdump) end with it.
const CLASS_KNOWN_LAST: u8 = 63;

/// `stats cachedump CLASS LIMIT`. With the last class that tools know come all those above, so that they miss nothing.
fn cachedump(ctx: Ctx<'_>, class: Option<&[u8]>, limit: Option<&[u8]>) -> Result<Dump, ErrorLine> {
    if !ctx.shared.settings.dump_enabled {
        return Err(ErrorLine::CachedumpNotAllowed);
    }
    let (Some(class), Some(limit)) = (class, limit) else {
        return Err(ErrorLine::BadCommandLine);
    };
    let class: u32 = number(class).ok_or(ErrorLine::BadFormat)?;
    let limit: u32 = number(limit).ok_or(ErrorLine::BadFormat)?;
    if class > u32::from(CLASS_KNOWN_LAST) && !is_in_use(ctx, class) {
        return Err(ErrorLine::IllegalSlabId);
    }
    let last = if class == u32::from(CLASS_KNOWN_LAST) {
        u8::MAX
    } else {
        class as u8
    };
    let classes = (class as u8..=last).filter_map(ClassId::new);
    Ok(Dump::items(
        classes.fold(ClassMask::NONE, ClassMask::with),
        limit,
    ))
}

/// True if `stats slabs` shows the class.
fn is_in_use(ctx: Ctx<'_>, class: u32) -> bool {
    let first = ctx.cache.class_reports_from(class as usize, ctx.now).next();
    first.is_some_and(|report| u32::from(report.class.get()) == class)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::command::testing::Server;
    use crate::settings::Settings;

    /// The lines of a group.
    fn stats(server: &Server, group: &str) -> BTreeMap<String, String> {
        let text = server.ask(&format!("stats {group}\r\n"));
        let lines = text
            .strip_suffix("END\r\n")
            .expect("END behind the lines")
            .split_terminator("\r\n");
        let pair = |line: &str| {
            let (key, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
            Some((key.to_owned(), value.to_owned()))
        };
        lines
            .map(|line| pair(line).expect("STAT key value"))
            .collect()
    }

    #[test]
    fn groups_may_be_cut_short() {
        let server = Server::start();
        assert_eq!(server.ask("stats s\r\n"), server.ask("stats settings\r\n"));
        server.check(&[
            ("stats c", "CLIENT_ERROR bad command line|"),
            ("stats co", "END|"),
            ("stats r", "RESET|"),
            ("stats d", "CLIENT_ERROR usage: stats detail on|off|dump|"),
            ("stats detail o", "OK|"),
            ("stats detail of", "OK|"),
            ("stats detail du", "END|"),
            ("stats item", "ERROR|"),
            ("stats sizes", "STAT sizes_status disabled|END|"),
            ("stats settingsx", "ERROR|"),
            ("stats extstore", "ERROR|"),
        ]);
    }

    #[test]
    fn cachedump_checks_its_words() {
        let server = Server::start();
        server.check(&[
            ("stats cachedump 1", "CLIENT_ERROR bad command line|"),
            (
                "stats cachedump x 1",
                "CLIENT_ERROR bad command line format|",
            ),
            (
                "stats cachedump 1 -1",
                "CLIENT_ERROR bad command line format|",
            ),
            ("stats cachedump 64 1", "CLIENT_ERROR Illegal slab id|"),
            ("stats cachedump 255 0", "CLIENT_ERROR Illegal slab id|"),
            ("stats cachedump 256 1", "CLIENT_ERROR Illegal slab id|"),
            (
                "stats cachedump 4294967295 1",
                "CLIENT_ERROR Illegal slab id|",
            ),
            ("stats cachedump 0 1", "END|"),
            ("stats cachedump 63 1", "END|"),
        ]);
    }

    #[test]
    fn classes_add_up_to_the_whole() {
        let server = Server::start();
        for i in 0..300 {
            let len = i * 3 % 600;
            server.ask(&format!(
                "set k{i} 0 0 {len}\r\n{}\r\nget k{i}\r\n",
                "v".repeat(len)
            ));
        }
        server.ask("delete k1\r\ndelete k2\r\nincr k3 1\r\n");
        let (general, items, slabs) = (
            stats(&server, ""),
            stats(&server, "items"),
            stats(&server, "slabs"),
        );
        let sum = |group: &BTreeMap<String, String>, key: &str| -> u64 {
            let of_key = group
                .iter()
                .filter(|(name, _)| name.ends_with(&format!(":{key}")));
            of_key
                .map(|(_, value)| value.parse::<u64>().expect("a number"))
                .sum()
        };
        for (group, key, total) in [
            (&items, "number", "curr_items"),
            (&items, "mem_requested", "bytes"),
            (&slabs, "get_hits", "get_hits"),
            (&slabs, "cmd_set", "cmd_set"),
            (&slabs, "delete_hits", "delete_hits"),
        ] {
            assert_eq!(sum(group, key).to_string(), general[total], "{key}");
        }
        assert_eq!(general["curr_items"], "298");
        assert_eq!(general["total_items"], "300");
        let in_segments = ["number_hot", "number_warm", "number_cold"].map(|key| sum(&items, key));
        assert_eq!(in_segments.iter().sum::<u64>(), 298);
        assert_eq!(
            sum(&slabs, "total_chunks"),
            sum(&slabs, "used_chunks") + sum(&slabs, "free_chunks")
        );
    }

    #[test]
    fn reset_forgets_what_was_counted() {
        let server = Server::start();
        server.ask("set a:b 0 0 1\r\nx\r\nstats detail on\r\nget a:b\r\n");
        server.check(&[("stats reset", "RESET|"), ("stats detail dump", "END|")]);
        let general = stats(&server, "");
        for key in ["cmd_get", "cmd_set", "get_hits", "total_items"] {
            assert_eq!(general[key], "0", "{key}");
        }
        assert_eq!(general["curr_items"], "1");
    }

    #[test]
    fn settings_are_those_in_force() {
        let server = Server::with(Settings {
            prefix_delimiter: b'/',
            ..Settings::default()
        });
        server.ask(
            "lru tune 15 35 0.5 3.0\r\nlru temp_ttl 33\r\nverbosity 1\r\ncache_memlimit 12\r\n",
        );
        let settings = stats(&server, "settings");
        for (key, value) in [
            ("hot_lru_pct", "15"),
            ("warm_max_factor", "3.00"),
            ("temp_lru", "yes"),
            ("temporary_ttl", "33"),
            ("verbosity", "1"),
            ("maxbytes", "12582912"),
            ("stat_key_prefix", "/"),
            ("slab_automove_freeratio", "0.010"),
            ("inter", "NULL"),
        ] {
            assert_eq!(settings[key], value, "{key}");
        }
        server.ask("lru temp_ttl -1\r\n");
        let settings = stats(&server, "settings");
        assert_eq!(
            (&*settings["temp_lru"], &*settings["temporary_ttl"]),
            ("no", "61")
        );
    }
}
