//! The whole server: `stats` without a group.

use std::sync::atomic::Ordering::Relaxed;

use super::classes::items_of;
use super::figures::{Figures, counts};
use super::sink::{Of, Sink};
use crate::cache::{ClassReport, LruCounters, MoveStats, TableShape};
use crate::settings::MEMCACHED_VERSION;
use crate::state::{ConnNumbers, Ctx};
use crate::stats::{ClassSums, GeneralSums};
use crate::sys;

/// What an idle connection takes (measured over 10,000 of them), and what a worker has for all of its own: input of a
/// group, of which few fill more than a page, and the replies of a turn.
const CONNECTION_BYTES: u64 = 256;
const WORKER_BUFFER_BYTES: u64 = 76 << 10;

/// The counters that more than one part of the report reads, at one moment.
struct Snapshot {
    general: GeneralSums,
    classes: ClassSums,
    connections: ConnNumbers,
    table: TableShape,
    moves: MoveStats,
    items: Items,
}

/// The items of all classes.
#[derive(Default)]
struct Items {
    bytes: u64,
    curr_items: u64,
    lru: LruCounters,
}

impl Snapshot {
    fn take(ctx: Ctx<'_>) -> Self {
        let sums = ctx.shared.stats.read();
        Snapshot {
            general: sums.general,
            classes: sums.over_classes(),
            connections: ctx.shared.connections.counts.read(),
            table: ctx.cache.table_shape(),
            moves: ctx.cache.move_stats(),
            items: Items::of(&ctx.cache.class_reports(ctx.now)),
        }
    }
}

impl Items {
    fn of(reports: &[ClassReport]) -> Self {
        let sum = |count: fn(&ClassReport) -> u64| reports.iter().map(count).sum::<u64>();
        Items {
            bytes: sum(|report| report.mem_requested),
            curr_items: sum(|report| items_of(report) as u64),
            lru: LruCounters {
                total_items: sum(|report| report.lru.total_items),
                evicted: sum(|report| report.lru.evicted),
                reclaimed: sum(|report| report.lru.reclaimed),
                expired_unfetched: sum(|report| report.lru.expired_unfetched),
                evicted_unfetched: sum(|report| report.lru.evicted_unfetched),
                evicted_active: sum(|report| report.lru.evicted_active),
                crawler_reclaimed: sum(|report| report.lru.crawler_reclaimed),
                crawler_items_checked: sum(|report| report.lru.crawler_items_checked),
                lrutail_reflocked: sum(|report| report.lru.lrutail_reflocked),
                moves_to_cold: sum(|report| report.lru.moves_to_cold),
                moves_to_warm: sum(|report| report.lru.moves_to_warm),
                moves_within_lru: sum(|report| report.lru.moves_within_lru),
                direct_reclaims: sum(|report| report.lru.direct_reclaims),
                ..LruCounters::default()
            },
        }
    }
}

/// All of it.
pub(super) fn general(ctx: Ctx<'_>, sink: &mut dyn Sink) {
    let snapshot = Snapshot::take(ctx);
    let of = Of::Server;
    let mut figures = Figures { of, sink };
    process(ctx, &mut figures);
    connections(ctx, &snapshot, &mut figures);
    commands(ctx, &snapshot, &mut figures);
    server(ctx, &snapshot, &mut figures);
    items(ctx, &snapshot.items, &mut figures);
    memory(ctx, &snapshot, &mut figures);
}

/// What stands behind the classes of `stats slabs`.
pub(super) fn slabs(ctx: Ctx<'_>, active: usize, pages: usize, sink: &mut dyn Sink) {
    let of = Of::Server;
    let mut figures = Figures { of, sink };
    let bytes = (pages + ctx.cache.pool_pages()) * ctx.cache.page_bytes();
    figures.count("active_slabs", active);
    figures.bytes("total_malloced", bytes);
}

fn process(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let usage = sys::rusage();
    figures.count("pid", std::process::id());
    figures.seconds("uptime", ctx.shared.clock.uptime_s());
    figures.seconds("time", ctx.shared.clock.unix(ctx.now));
    figures.text("version", MEMCACHED_VERSION);
    figures.text("ketch_version", env!("CARGO_PKG_VERSION"));
    // There is none; the key names what waits for the sockets.
    figures.text("libevent", "mio");
    figures.count("pointer_size", usize::BITS);
    figures.time("rusage_user", usage.user);
    figures.time("rusage_system", usage.system);
}

fn connections(ctx: Ctx<'_>, snapshot: &Snapshot, figures: &mut Figures<'_>) {
    let (settings, general) = (&ctx.shared.settings, &snapshot.general);
    let connections = &snapshot.connections;
    figures.count("max_connections", settings.conns_allowed());
    counts!(figures, connections, curr_connections total_connections rejected_connections);
    figures.count("connection_structures", connections.curr_connections);
    counts!(figures, general, response_obj_oom);
    figures.zeros(&["response_obj_count", "response_obj_bytes"]);
    counts!(figures, connections, read_buf_count);
    figures.bytes("read_buf_bytes", connections.read_buf_bytes);
    figures.zeros(&["read_buf_bytes_free"]);
    counts!(figures, general, read_buf_oom);
    figures.count("reserved_fds", settings.files_reserved());
}

fn commands(ctx: Ctx<'_>, snapshot: &Snapshot, figures: &mut Figures<'_>) {
    let (general, classes) = (&snapshot.general, &snapshot.classes);
    counts!(figures, general, cmd_get);
    counts!(figures, classes, cmd_set);
    counts!(figures, general, cmd_flush cmd_touch cmd_meta);
    counts!(figures, classes, get_hits);
    counts!(figures, general, get_misses get_expired get_flushed delete_misses);
    counts!(figures, classes, delete_hits);
    counts!(figures, general, incr_misses);
    counts!(figures, classes, incr_hits);
    counts!(figures, general, decr_misses);
    counts!(figures, classes, decr_hits);
    counts!(figures, general, cas_misses);
    counts!(figures, classes, cas_hits cas_badval touch_hits);
    counts!(figures, general, touch_misses store_too_large store_no_memory auth_cmds auth_errors);
    if ctx.shared.settings.idle_timeout_s > 0 {
        counts!(figures, general, idle_kicks);
    }
    if !ctx.shared.settings.register.url.is_empty() {
        let ring = &ctx.shared.cluster.ring;
        figures.count("ketch_ring_members", ring.members.load(Relaxed));
        figures.count("ketch_ring_frozen", u64::from(ring.frozen.load(Relaxed)));
        figures.count("ketch_ring_weight", ring.weight.load(Relaxed));
    }
    figures.bytes("ketch_block_bytes", ctx.shared.bodies.held());
    figures.count("ketch_blocks_timed_out", general.blocks_timed_out);
    figures.count("ketch_blocks_given_way", general.blocks_given_way);
    figures.count("ketch_readers_given_way", general.readers_given_way);
    figures.bytes("ketch_unread_bytes", ctx.shared.unread.held());
    figures.bytes("bytes_read", general.bytes_read);
    figures.bytes("bytes_written", general.bytes_written);
}

fn server(ctx: Ctx<'_>, snapshot: &Snapshot, figures: &mut Figures<'_>) {
    let (connections, table, moves) = (&snapshot.connections, &snapshot.table, &snapshot.moves);
    figures.bytes("limit_maxbytes", ctx.cache.limit_bytes());
    counts!(figures, connections, accepting_conns listen_disabled_num time_in_listen_disabled_us);
    figures.count("threads", ctx.shared.settings.threads);
    counts!(figures, &snapshot.general, conn_yields);

    figures.count("hash_power_level", table.buckets.max(1).ilog2());
    figures.bytes("hash_bytes", table.bytes());
    // It grows by one bucket at a time: there is no moment at which it is expanding.
    figures.zeros(&["hash_is_expanding"]);

    figures.count("slab_reassign_rescues", moves.rescues);
    figures.count("slab_reassign_chunk_rescues", moves.chunk_rescues);
    figures.count("slab_reassign_inline_reclaim", moves.inline_reclaim);
    figures.count("slab_reassign_busy_items", moves.busy_items);
    figures.zeros(&["slab_reassign_busy_deletes"]);
    figures.count("slab_reassign_busy_nomem", moves.busy_nomem);
    figures.text("slab_reassign_last_busy_status", "none");
    figures.count("slab_reassign_running", u8::from(moves.running));
    figures.count("slabs_moved", moves.moved);
    let beyond = ctx.cache.bytes_beyond_limit();
    figures.bytes("ketch_beyond_limit_bytes", beyond);

    let counters = &ctx.cache.counters;
    let crawls = counters.lru_crawler_running.load(Relaxed);
    figures.count("lru_crawler_running", u8::from(crawls));
    let loaded = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    figures.count("lru_crawler_starts", loaded(&counters.lru_crawler_starts));
    let juggles = loaded(&counters.lru_maintainer_juggles);
    figures.count("lru_maintainer_juggles", juggles);
    figures.count("malloc_fails", loaded(&counters.malloc_fails));
    watching(ctx, figures);
    saving(ctx, figures);
    tls(ctx, figures);
    figures.zeros(&["unexpected_napi_ids", "round_robin_fallback"]);
}

fn watching(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let events = ctx.cache.events();
    let (written, dropped) = events.sights.counts();
    let (watchers, readers) = events.places.taken();
    let loaded = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    figures.count("log_worker_dropped", dropped);
    figures.count("log_worker_written", written);
    figures.count("log_watcher_skipped", loaded(&events.sights.skipped));
    figures.count("log_watcher_sent", loaded(&events.sights.sent));
    figures.count("log_watchers", watchers);
    let feed = events.feed.report();
    figures.count("ketch_feed_readers", readers);
    figures.count("ketch_feed_events", feed.last);
    figures.count("ketch_feed_gaps", feed.gaps);
    figures.bytes("ketch_feed_bytes", feed.history_bytes);
}

fn saving(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    if !ctx.shared.saving.is_enabled() {
        return;
    }
    let report = ctx.shared.saving.report();
    figures.count("ketch_snapshot_running", u8::from(report.is_running));
    figures.count("ketch_snapshot_written", report.written);
    figures.count("ketch_snapshot_failed", report.failed);
    figures.seconds("ketch_snapshot_last_time", report.last_unix_s);
    figures.count("ketch_snapshot_last_items", report.last_items);
    figures.bytes("ketch_snapshot_last_bytes", report.last_bytes);
    figures.time("ketch_snapshot_last_seconds", report.last_time);
    if !report.last_error.is_empty() {
        figures.text("ketch_snapshot_last_error", &report.last_error);
    }
    let Some(log) = &ctx.shared.settler else {
        return;
    };
    let report = log.report();
    figures.count("ketch_log_on", u8::from(report.is_on));
    figures.count("ketch_log_segment", report.segment);
    figures.bytes("ketch_log_segment_bytes", report.segment_bytes);
    figures.bytes("ketch_log_bytes", report.bytes);
    figures.count("ketch_log_commits", report.commits);
    figures.count("ketch_log_syncs", report.syncs);
    figures.count("ketch_log_stops", report.stops);
    if !report.last_error.is_empty() {
        figures.text("ketch_log_last_error", &report.last_error);
    }
}

fn tls(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let Some(certs) = &ctx.shared.certs else {
        return;
    };
    let counters = certs.counters.read();
    // Without sessions that come back, all are new and memcached counts none.
    if ctx.shared.settings.tls.session_cache {
        counts!(figures, counters, ssl_new_sessions);
    }
    counts!(figures, counters, ssl_handshake_errors ssl_proto_errors);
    figures.seconds("time_since_server_cert_refresh", certs.age_s(ctx.now));
}

fn items(ctx: Ctx<'_>, items: &Items, figures: &mut Figures<'_>) {
    let lru = &items.lru;
    figures.bytes("bytes", items.bytes);
    counts!(figures, items, curr_items);
    counts!(figures, lru, total_items);
    figures.count("slab_global_page_pool", ctx.cache.pool_pages());
    counts!(figures, lru, expired_unfetched evicted_unfetched evicted_active);
    figures.count("evictions", lru.evicted);
    counts!(figures, lru, reclaimed crawler_reclaimed crawler_items_checked lrutail_reflocked
        moves_to_cold moves_to_warm moves_within_lru direct_reclaims);
    figures.zeros(&["lru_bumps_dropped"]);
}

/// Where the resident memory is: the first is what the system says, the others add up to it.
fn memory(ctx: Ctx<'_>, snapshot: &Snapshot, figures: &mut Figures<'_>) {
    let (shared, cache, connections) = (ctx.shared, ctx.cache, &snapshot.connections);
    if let Some(resident) = sys::resident_bytes() {
        figures.bytes("ketch_resident_bytes", resident);
    }
    if let Some((machine_bytes, _)) = sys::memory_limit() {
        figures.bytes("ketch_machine_bytes", machine_bytes);
    }
    let kept = connections.read_buf_bytes + connections.reply_bytes + shared.staged() as u64;
    figures.bytes("ketch_base_bytes", shared.base_bytes);
    figures.bytes("ketch_arena_bytes", cache.arena_bytes());
    figures.bytes("ketch_table_bytes", snapshot.table.bytes());
    figures.bytes("ketch_policy_bytes", cache.policy_bytes());
    let insight = shared.keyspace.bytes() + cache.departed_bytes() as u64;
    figures.bytes("ketch_insight_bytes", insight);
    figures.bytes(
        "ketch_connection_bytes",
        connections.curr_connections * CONNECTION_BYTES,
    );
    figures.bytes(
        "ketch_buffer_bytes",
        kept + shared.settings.threads as u64 * WORKER_BUFFER_BYTES,
    );
}
