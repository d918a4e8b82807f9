//! `stats` without a group: the whole server.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::classes::items_of;
use super::lines::{Lines, fields, loaded};
use crate::cache::ClassReport;
use crate::settings::MEMCACHED_VERSION;
use crate::state::Ctx;
use crate::sys;

/// What an idle connection takes (measured over 10,000 of them), and what a worker has for all of its own: input of a
/// group, of which few fill more than a page, and the replies of a turn.
const CONNECTION_BYTES: usize = 256;
const WORKER_BUFFER_BYTES: usize = 76 << 10;

/// `stats`.
pub(crate) fn general(ctx: Ctx<'_>, out: &mut Vec<u8>) {
    let mut lines = Lines { out };
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
