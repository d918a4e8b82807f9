//! `stats`: what the server counts and how it is set, under memcached's keys and in their order.
//!
//! A key that has no meaning here (another memory of connections, no watchers) is shown with the value it would have if
//! nothing of the kind ever happened: clients look for it.

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use protocol::reply::{self, END, RESET};
use protocol::{Args, BinaryHead, ErrorLine, Status, binary};

use super::admin::{AdminOutcome, number};
use super::dump::Dump;
use super::output::Output;
use super::report::Report;
use super::shared::Ctx;
use crate::cache::{ClassId, ClassMask, ClassReport};
use crate::settings::{MEMCACHED_VERSION, Tls};
use crate::sys;

/// memcached's seconds for the TEMP segment, shown while it is not used.
const TEMPORARY_TTL_S: u32 = 61;

/// What an idle connection takes (measured over 10,000 of them), and what a worker has for all of its own: input of a
/// group, of which few fill more than a page, and the replies of a turn.
const CONNECTION_BYTES: usize = 256;
const WORKER_BUFFER_BYTES: usize = 76 << 10;

/// `stats [GROUP ..]`. What grows with what the server holds is answered in steps.
///
/// The longer names may be cut short, as in memcached: the first that begins with the word is meant.
pub(super) fn execute(ctx: Ctx<'_>, args: Args<'_>, out: &mut Output<'_>) -> AdminOutcome {
    let mut words = args.iter();
    let Some(group) = words.next() else {
        general(ctx, out);
        out.bytes(END);
        return AdminOutcome::Done;
    };
    match group {
        b"items" => return AdminOutcome::Report(Report::items(None)),
        b"slabs" => return AdminOutcome::Report(Report::slabs(None)),
        b"sizes" if ctx.shared.settings.track_sizes => {
            return AdminOutcome::Dump(Dump::sizes(None));
        }
        b"sizes" => reply::stat(&mut out.buf, "sizes_status", "disabled"),
        _ if is_short_for(group, RESET_GROUP) => {
            reset(ctx);
            out.bytes(RESET);
            return AdminOutcome::Done;
        }
        _ if is_short_for(group, DETAIL_GROUP) => {
            return match detail(ctx, words.next()) {
                Ok(Some(dump)) => AdminOutcome::Dump(dump),
                Ok(None) => {
                    out.bytes(reply::OK);
                    AdminOutcome::Done
                }
                Err(error) => {
                    out.error(error);
                    AdminOutcome::Done
                }
            };
        }
        _ if b"settings".starts_with(group) => settings(ctx, out),
        _ if b"cachedump".starts_with(group) => {
            return match cachedump(ctx, words.next(), words.next()) {
                Ok(dump) => AdminOutcome::Dump(dump),
                Err(error) => {
                    out.error(error);
                    AdminOutcome::Done
                }
            };
        }
        _ if b"conns".starts_with(group) => return AdminOutcome::Report(Report::conns(None)),
        _ => {
            out.error(ErrorLine::Error);
            return AdminOutcome::Done;
        }
    }
    out.bytes(END);
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

/// Binary `stat`: the same lines, each in a packet. Rare enough to write them as text first.
///
/// Of the groups memcached's binary protocol knows, and `conns`; whole names only. A dump is never of lines but `sizes`.
pub(super) fn execute_binary(
    ctx: Ctx<'_>,
    head: BinaryHead,
    group: &[u8],
    out: &mut Output<'_>,
) -> AdminOutcome {
    match group {
        b"detail dump" | b"detail on" | b"detail off" if !ctx.shared.settings.dump_enabled => {
            binary::error(&mut out.buf, head, Status::AuthError);
            return AdminOutcome::Done;
        }
        b"detail dump" => return AdminOutcome::Dump(Dump::prefixes(Some(head))),
        b"sizes" if ctx.shared.settings.track_sizes => {
            return AdminOutcome::Dump(Dump::sizes(Some(head)));
        }
        b"items" => return AdminOutcome::Report(Report::items(Some(head))),
        b"slabs" => return AdminOutcome::Report(Report::slabs(Some(head))),
        b"conns" => return AdminOutcome::Report(Report::conns(Some(head))),
        b"" | b"sizes" | b"settings" | b"reset" | b"detail on" | b"detail off" => {
            let mut text = Output::new();
            execute(ctx, Args(group), &mut text);
            binary_lines(head, &text.buf, out);
        }
        _ => {
            binary::error(&mut out.buf, head, Status::NotFound);
            return AdminOutcome::Done;
        }
    }
    binary::stat_end(&mut out.buf, head);
    AdminOutcome::Done
}

/// Lines of text, each in its packet.
pub(super) fn binary_lines(head: BinaryHead, lines: &[u8], out: &mut Output<'_>) {
    for line in lines.split(|&byte| byte == b'\n') {
        binary_line(head, line.strip_suffix(b"\r").unwrap_or(line), out);
    }
}

/// A line `STAT key value` in its packet. Other lines are ends, which have one of their own.
fn binary_line(head: BinaryHead, line: &[u8], out: &mut Output<'_>) {
    if let Some(pair) = line.strip_prefix(b"STAT ") {
        let key_len = pair.iter().position(|&byte| byte == b' ');
        let (key, value) = pair.split_at(key_len.unwrap_or(pair.len()));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        binary::stat(&mut out.buf, head, key, value);
    }
}

/// `stats reset`.
fn reset(ctx: Ctx<'_>) {
    let shared = ctx.shared;
    shared.stats.reset();
    shared.prefixes.clear();
    if let Some(certs) = &shared.certs {
        certs.counters.reset();
    }
    ctx.cache.reset_counters();
    ctx.cache.counters.lru_crawler_starts.store(0, Relaxed);
    let connections = &shared.connections;
    for count in [
        &connections.total_connections,
        &connections.rejected_connections,
        &connections.listen_disabled_num,
        &connections.time_in_listen_disabled_us,
    ] {
        count.store(0, Relaxed);
    }
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

/// The lines of one reply.
struct Lines<'o> {
    out: &'o mut Vec<u8>,
}

impl Lines<'_> {
    fn stat(&mut self, key: &str, value: impl Display) {
        reply::stat(self.out, key, value);
    }

    /// Keys of things that never happen here.
    fn zeros(&mut self, keys: &[&str]) {
        for key in keys {
            self.stat(key, 0);
        }
    }

    fn switch(&mut self, key: &str, on: bool) {
        self.stat(key, if on { "yes" } else { "no" });
    }
}

/// Writes each field of a struct under its own name.
macro_rules! fields {
    ($lines:expr, $from:expr, $($key:ident)*) => {
        $($lines.stat(stringify!($key), $from.$key);)*
    };
}

pub(super) use fields;

/// The same for atomics.
macro_rules! loaded {
    ($lines:expr, $from:expr, $($key:ident)*) => {
        $($lines.stat(stringify!($key), $from.$key.load(Relaxed));)*
    };
}

/// `stats`.
fn general(ctx: Ctx<'_>, out: &mut Output<'_>) {
    let mut lines = Lines { out: &mut out.buf };
    about_process(ctx, &mut lines);
    about_connections(ctx, &mut lines);
    about_commands(ctx, &mut lines);
    about_server(ctx, &mut lines);
    about_items(ctx, &mut lines);
    about_memory(ctx, &mut lines);
}

fn about_process(ctx: Ctx<'_>, lines: &mut Lines<'_>) {
    let usage = sys::rusage();
    let time = |time: Duration| format!("{}.{:06}", time.as_secs(), time.subsec_micros());
    lines.stat("pid", std::process::id());
    lines.stat("uptime", ctx.shared.clock.uptime_s());
    lines.stat("time", ctx.shared.clock.unix(ctx.now));
    lines.stat("version", MEMCACHED_VERSION);
    lines.stat("ketch_version", env!("CARGO_PKG_VERSION"));
    // There is none; the key names what waits for the sockets.
    lines.stat("libevent", "mio");
    lines.stat("pointer_size", usize::BITS);
    lines.stat("rusage_user", time(usage.user));
    lines.stat("rusage_system", time(usage.system));
}

fn about_connections(ctx: Ctx<'_>, lines: &mut Lines<'_>) {
    let (settings, connections) = (&ctx.shared.settings, &ctx.shared.connections);
    lines.stat("max_connections", settings.conns_allowed());
    loaded!(lines, connections, curr_connections total_connections rejected_connections);
    lines.stat(
        "connection_structures",
        connections.curr_connections.load(Relaxed),
    );
    let general = ctx.shared.stats.read().general;
    fields!(lines, general, response_obj_oom);
    lines.zeros(&["response_obj_count", "response_obj_bytes"]);
    loaded!(lines, connections, read_buf_count read_buf_bytes);
    lines.zeros(&["read_buf_bytes_free"]);
    fields!(lines, general, read_buf_oom);
    lines.stat("reserved_fds", settings.files_reserved());
}

fn about_commands(ctx: Ctx<'_>, lines: &mut Lines<'_>) {
    let sums = ctx.shared.stats.read();
    let (general, classes) = (sums.general, sums.over_classes());
    fields!(lines, general, cmd_get);
    fields!(lines, classes, cmd_set);
    fields!(lines, general, cmd_flush cmd_touch cmd_meta);
    fields!(lines, classes, get_hits);
    fields!(lines, general, get_misses get_expired get_flushed delete_misses);
    fields!(lines, classes, delete_hits);
    fields!(lines, general, incr_misses);
    fields!(lines, classes, incr_hits);
    fields!(lines, general, decr_misses);
    fields!(lines, classes, decr_hits);
    fields!(lines, general, cas_misses);
    fields!(lines, classes, cas_hits cas_badval touch_hits);
    fields!(lines, general, touch_misses store_too_large store_no_memory auth_cmds auth_errors);
    if ctx.shared.settings.idle_timeout_s > 0 {
        fields!(lines, general, idle_kicks);
    }
    lines.stat("ketch_block_bytes", ctx.shared.bodies.held());
    lines.stat("ketch_blocks_timed_out", general.blocks_timed_out);
    lines.stat("ketch_blocks_given_way", general.blocks_given_way);
    fields!(lines, general, bytes_read bytes_written);
}

fn about_server(ctx: Ctx<'_>, lines: &mut Lines<'_>) {
    let (shared, cache) = (ctx.shared, ctx.cache);
    lines.stat("limit_maxbytes", cache.limit_bytes());
    loaded!(lines, shared.connections, accepting_conns listen_disabled_num time_in_listen_disabled_us);
    lines.stat("threads", shared.settings.threads);
    lines.stat("conn_yields", shared.stats.read().general.conn_yields);

    let shape = cache.table_shape();
    lines.stat("hash_power_level", shape.buckets.max(1).ilog2());
    lines.stat("hash_bytes", shape.bytes());
    // It grows by one bucket at a time: there is no moment at which it is expanding.
    lines.zeros(&["hash_is_expanding"]);

    let moves = cache.move_stats();
    lines.stat("slab_reassign_rescues", moves.rescues);
    lines.stat("slab_reassign_chunk_rescues", moves.chunk_rescues);
    lines.stat("slab_reassign_inline_reclaim", moves.inline_reclaim);
    lines.stat("slab_reassign_busy_items", moves.busy_items);
    lines.zeros(&["slab_reassign_busy_deletes"]);
    lines.stat("slab_reassign_busy_nomem", moves.busy_nomem);
    lines.stat("slab_reassign_last_busy_status", "none");
    lines.stat("slab_reassign_running", u8::from(moves.running));
    lines.stat("slabs_moved", moves.moved);

    let counters = &cache.counters;
    lines.stat(
        "lru_crawler_running",
        u8::from(counters.lru_crawler_running.load(Relaxed)),
    );
    loaded!(lines, counters, lru_crawler_starts lru_maintainer_juggles malloc_fails);
    lines.zeros(&[
        "log_worker_dropped",
        "log_worker_written",
        "log_watcher_skipped",
    ]);
    lines.zeros(&["log_watcher_sent", "log_watchers"]);
    about_tls(ctx, lines);
    lines.zeros(&["unexpected_napi_ids", "round_robin_fallback"]);
}

fn about_tls(ctx: Ctx<'_>, lines: &mut Lines<'_>) {
    let Some(certs) = &ctx.shared.certs else {
        return;
    };
    // Without sessions that come back, all are new and memcached counts none.
    if ctx.shared.settings.tls.session_cache {
        loaded!(lines, certs.counters, ssl_new_sessions);
    }
    loaded!(lines, certs.counters, ssl_handshake_errors ssl_proto_errors);
    lines.stat("time_since_server_cert_refresh", certs.age_s(ctx.now));
}

fn about_items(ctx: Ctx<'_>, lines: &mut Lines<'_>) {
    let reports = ctx.cache.class_reports(ctx.now);
    let sum = |count: fn(&ClassReport) -> u64| reports.iter().map(count).sum::<u64>();
    lines.stat("bytes", sum(|report| report.mem_requested));
    lines.stat("curr_items", sum(|report| items_of(report) as u64));
    lines.stat("total_items", sum(|report| report.lru.total_items));
    lines.stat("slab_global_page_pool", ctx.cache.pool_pages());
    lines.stat(
        "expired_unfetched",
        sum(|report| report.lru.expired_unfetched),
    );
    lines.stat(
        "evicted_unfetched",
        sum(|report| report.lru.evicted_unfetched),
    );
    lines.stat("evicted_active", sum(|report| report.lru.evicted_active));
    lines.stat("evictions", sum(|report| report.lru.evicted));
    lines.stat("reclaimed", sum(|report| report.lru.reclaimed));
    lines.stat(
        "crawler_reclaimed",
        sum(|report| report.lru.crawler_reclaimed),
    );
    lines.stat(
        "crawler_items_checked",
        sum(|report| report.lru.crawler_items_checked),
    );
    lines.stat(
        "lrutail_reflocked",
        sum(|report| report.lru.lrutail_reflocked),
    );
    lines.stat("moves_to_cold", sum(|report| report.lru.moves_to_cold));
    lines.stat("moves_to_warm", sum(|report| report.lru.moves_to_warm));
    lines.stat(
        "moves_within_lru",
        sum(|report| report.lru.moves_within_lru),
    );
    lines.stat("direct_reclaims", sum(|report| report.lru.direct_reclaims));
    lines.zeros(&["lru_bumps_dropped"]);
}

/// Where the resident memory is: the first is what the system says, the others add up to it.
fn about_memory(ctx: Ctx<'_>, lines: &mut Lines<'_>) {
    let (shared, cache) = (ctx.shared, ctx.cache);
    if let Some(resident) = sys::resident_bytes() {
        lines.stat("ketch_resident_bytes", resident);
    }
    let connections = &shared.connections;
    let open = connections.curr_connections.load(Relaxed);
    let kept = connections.read_buf_bytes.load(Relaxed)
        + connections.reply_bytes.load(Relaxed)
        + shared.staged();
    lines.stat("ketch_base_bytes", shared.base_bytes);
    lines.stat("ketch_arena_bytes", cache.arena_bytes());
    lines.stat("ketch_table_bytes", cache.table_shape().bytes());
    lines.stat("ketch_policy_bytes", cache.policy_bytes());
    lines.stat("ketch_connection_bytes", open * CONNECTION_BYTES);
    lines.stat(
        "ketch_buffer_bytes",
        kept + shared.settings.threads * WORKER_BUFFER_BYTES,
    );
}

pub(super) fn items_of(report: &ClassReport) -> usize {
    report.counts.iter().sum()
}

/// `stats settings`: what is in force now, commands included.
fn settings(ctx: Ctx<'_>, out: &mut Output<'_>) {
    let (settings, tuning) = (&ctx.shared.settings, &ctx.cache.tuning);
    let mut lines = Lines { out: &mut out.buf };
    let ratio = |milli: u32| format!("{:.2}", f64::from(milli) / 1000.0);
    let or_null = |text: Option<String>| text.unwrap_or_else(|| "NULL".to_owned());

    lines.stat("maxbytes", ctx.cache.limit_bytes());
    lines.stat("maxconns", settings.conns_max);
    lines.stat("tcpport", settings.tcp_port);
    lines.stat("udpport", settings.udp_port);
    lines.stat("inter", or_null(settings.listen_given.clone()));
    lines.stat("verbosity", ctx.shared.verbosity.load(Relaxed));
    lines.zeros(&["oldest"]);
    lines.stat(
        "evictions",
        if tuning.may_evict.load(Relaxed) {
            "on"
        } else {
            "off"
        },
    );
    let socket = settings.unix_socket.as_ref();
    lines.stat(
        "domain_socket",
        or_null(socket.map(|path| path.display().to_string())),
    );
    lines.stat("umask", format_args!("{:o}", settings.unix_mask));
    lines.switch("shutdown_command", settings.shutdown_command);
    lines.stat(
        "growth_factor",
        format_args!("{:.2}", settings.growth_factor),
    );
    lines.stat("chunk_size", settings.chunk_bytes_min);
    lines.stat("num_threads", settings.threads);
    lines.stat("num_threads_per_udp", settings.threads);
    lines.stat(
        "stat_key_prefix",
        char::from(ctx.shared.prefixes.delimiter()),
    );
    lines.switch("detail_enabled", ctx.shared.prefixes.is_enabled());
    lines.stat("reqs_per_event", settings.reqs_per_event);
    lines.switch("cas_enabled", settings.cas);
    lines.stat("tcp_backlog", settings.backlog);
    lines.stat("binding_protocol", settings.protocol.name());
    lines.switch("auth_enabled_sasl", settings.sasl);
    let auth_file = settings.auth_file.as_deref();
    lines.stat(
        "auth_enabled_ascii",
        auth_file.unwrap_or(Path::new("no")).display(),
    );
    lines.stat("item_size_max", settings.item_bytes_max);
    lines.switch("maxconns_fast", settings.maxconns_fast);
    lines.stat("hashpower_init", settings.hashpower_init);

    lines.switch("slab_reassign", tuning.slab_reassign.load(Relaxed));
    lines.stat("slab_automove", tuning.slab_automove.load(Relaxed));
    lines.stat(
        "slab_automove_ratio",
        ratio(tuning.slab_automove_ratio_milli.load(Relaxed)),
    );
    lines.stat(
        "slab_automove_window",
        tuning.slab_automove_window.load(Relaxed),
    );
    lines.stat("slab_chunk_max", settings.slab_chunk_bytes_max);
    lines.switch("lru_crawler", tuning.lru_crawler.load(Relaxed));
    lines.stat(
        "lru_crawler_sleep",
        tuning.lru_crawler_sleep_us.load(Relaxed),
    );
    lines.stat(
        "lru_crawler_tocrawl",
        tuning.lru_crawler_tocrawl.load(Relaxed),
    );
    lines.stat("tail_repair_time", settings.tail_repair_time_s);
    lines.switch("flush_enabled", settings.flush_enabled);
    lines.switch("dump_enabled", settings.dump_enabled);
    lines.stat("hash_algorithm", settings.hash_algorithm);
    lines.switch("lru_maintainer_thread", tuning.lru_maintainer.load(Relaxed));
    lines.switch("lru_segmented", tuning.segmented.load(Relaxed));
    lines.stat("ketch_eviction", tuning.policy().name());
    lines.stat("ketch_body_timeout", settings.body_timeout_s);
    loaded!(lines, tuning, hot_lru_pct warm_lru_pct);
    lines.stat(
        "hot_max_factor",
        ratio(tuning.hot_max_factor_milli.load(Relaxed)),
    );
    lines.stat(
        "warm_max_factor",
        ratio(tuning.warm_max_factor_milli.load(Relaxed)),
    );
    let temporary_ttl_s = u32::try_from(tuning.temporary_ttl_s.load(Relaxed));
    lines.switch("temp_lru", temporary_ttl_s.is_ok());
    lines.stat("temporary_ttl", temporary_ttl_s.unwrap_or(TEMPORARY_TTL_S));

    lines.stat("idle_timeout", settings.idle_timeout_s);
    lines.stat("watcher_logbuf_size", settings.watcher_logbuf_bytes);
    lines.stat("worker_logbuf_size", settings.worker_logbuf_bytes);
    lines.stat("read_buf_mem_limit", settings.read_buf_mem_limit_bytes);
    lines.switch("track_sizes", settings.track_sizes);
    lines.switch("inline_ascii_response", false);
    external_storage_settings(&mut lines);
    let freeratio = f64::from(tuning.slab_automove_freeratio_milli.load(Relaxed)) / 1000.0;
    lines.stat("slab_automove_freeratio", format_args!("{freeratio:.3}"));
    lines.switch("ext_drop_unread", false);
    tls_settings(&settings.tls, &mut lines);
    lines.zeros(&["num_napi_ids"]);
    lines.stat("memory_file", "(null)");
    lines.stat("client_flags_size", size_of::<u32>());
}

/// What memcached shows of its storage on disk when it has none.
fn external_storage_settings(lines: &mut Lines<'_>) {
    lines.stat("ext_item_size", 512);
    // Never.
    lines.stat("ext_item_age", u32::MAX);
    lines.zeros(&["ext_low_ttl"]);
    lines.stat("ext_recache_rate", 2000);
    lines.stat("ext_wbuf_size", 4 << 20);
    lines.zeros(&["ext_compact_under", "ext_drop_under"]);
    lines.stat("ext_max_sleep", 1_000_000);
    lines.stat("ext_max_frag", "0.80");
}

fn tls_settings(tls: &Tls, lines: &mut Lines<'_>) {
    let path_or = |path: Option<&Path>, none: &str| {
        path.map_or_else(|| none.to_owned(), |path| path.display().to_string())
    };
    lines.switch("ssl_enabled", tls.enabled);
    lines.stat(
        "ssl_chain_cert",
        path_or(tls.chain_cert.as_deref(), "(null)"),
    );
    lines.stat("ssl_key", path_or(tls.key_file(), "(null)"));
    // OpenSSL's bits: 1 ask, 2 fail without one, 4 ask once.
    lines.stat(
        "ssl_verify_mode",
        [0, 1, 3, 7][usize::from(tls.verify_mode)],
    );
    // PEM.
    lines.stat("ssl_keyformat", 1);
    lines.stat(
        "ssl_ciphers",
        tls.ciphers.clone().unwrap_or_else(|| "NULL".to_owned()),
    );
    lines.stat("ssl_ca_cert", path_or(tls.ca_cert.as_deref(), "NULL"));
    lines.stat("ssl_wbuf_size", tls.wbuf_bytes);
    lines.switch("ssl_session_cache", tls.session_cache);
    lines.switch("ssl_kernel_tls", false);
    lines.stat("ssl_min_version", tls.min_version.name());
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
