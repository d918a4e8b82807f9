//! What is in force now, commands included: `stats settings`.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use super::figures::Figures;
use super::sink::{Of, Sink};
use crate::knobs::{Form, Knob, OFF};
use crate::settings::Tls;
use crate::state::Ctx;

/// memcached's seconds for the TEMP segment, shown while it is not used.
const TEMPORARY_TTL_S: u32 = 61;

/// All of it.
pub(super) fn settings(ctx: Ctx<'_>, sink: &mut dyn Sink) {
    let of = Of::Server;
    let mut figures = Figures { of, sink };
    sockets(ctx, &mut figures);
    memory(ctx, &mut figures);
    buffers(ctx, &mut figures);
    external_storage(ctx, &mut figures);
    own(ctx, &mut figures);
    tls(&ctx.shared.settings.tls, &mut figures);
    figures.zeros(&["num_napi_ids"]);
    let memory_file = ctx.shared.settings.memory_file.as_deref();
    let memory_file = memory_file.unwrap_or(Path::new("(null)"));
    figures.text("memory_file", &memory_file.display().to_string());
    figures.bytes("client_flags_size", size_of::<u32>());
}

/// The knobs that memcached shows behind `hashpower_init`. Its figures are in its order.
const PAGES: &[Knob] = &[
    Knob::SlabReassign,
    Knob::SlabAutomove,
    Knob::SlabAutomoveRatio,
    Knob::SlabAutomoveWindow,
];
/// Those behind `slab_chunk_max`.
const CRAWLER: &[Knob] = &[
    Knob::LruCrawler,
    Knob::LruCrawlerSleep,
    Knob::LruCrawlerTocrawl,
];
/// Those behind `hash_algorithm`.
const LRU: &[Knob] = &[
    Knob::LruMaintainer,
    Knob::LruSegmented,
    Knob::HotLruPct,
    Knob::WarmLruPct,
    Knob::HotMaxFactor,
    Knob::WarmMaxFactor,
];
/// Those among the figures of storage on disk, whose mover it is.
const FREE: &[Knob] = &[Knob::SlabAutomoveFreeratio];
/// That behind `oldest`.
const EVICTIONS: &[Knob] = &[Knob::Evictions];

/// What memcached does not have: the knobs that stand nowhere else, and the policy in force, which without segments is
/// another than asked for.
fn own(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let of_memcached = [PAGES, CRAWLER, LRU, FREE, EVICTIONS].concat();
    let is_own = |knob: &Knob| !of_memcached.contains(knob);
    let own: Vec<Knob> = Knob::ALL.into_iter().filter(is_own).collect();
    knobs(ctx, &own, figures);
    figures.text("ketch_eviction", ctx.cache.tuning.policy().name());
    figures.seconds("ketch_body_timeout", ctx.shared.settings.body_timeout_s);
}

/// Knobs as their table says.
fn knobs(ctx: Ctx<'_>, knobs: &[Knob], figures: &mut Figures<'_>) {
    let tuning = &ctx.cache.tuning;
    for &knob in knobs {
        let (row, number) = (knob.row(), tuning.get(knob));
        match row.form {
            _ if row.stat.is_empty() => {}
            Form::Switch => figures.switch(row.stat, number != 0),
            Form::OnOff => figures.text(row.stat, if number != 0 { "on" } else { "off" }),
            Form::Ratio { digits, .. } => {
                figures.ratio(row.stat, f64::from(number) / 1000.0, digits);
            }
            Form::Name(names) => figures.text(row.stat, names[number as usize % names.len()]),
            Form::Whole(..) | Form::Count | Form::Percent(_) | Form::Ttl => {
                figures.count(row.stat, number);
            }
        }
    }
}

fn sockets(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let settings = &ctx.shared.settings;
    figures.bytes("maxbytes", ctx.cache.limit_bytes());
    figures.count("maxconns", settings.conns_max);
    figures.number("tcpport", settings.tcp_port);
    figures.number("udpport", settings.udp_port);
    figures.text("inter", settings.listen_given.as_deref().unwrap_or("NULL"));
    figures.count("verbosity", ctx.shared.verbosity.load(Relaxed));
    figures.zeros(&["oldest"]);
    knobs(ctx, EVICTIONS, figures);
    let socket = settings.unix_socket.as_deref().unwrap_or(Path::new("NULL"));
    figures.text("domain_socket", &socket.display().to_string());
    figures.text("umask", &format!("{:o}", settings.unix_mask));
    figures.switch("shutdown_command", settings.shutdown_command);
    figures.ratio("growth_factor", settings.growth_factor, 2);
    figures.bytes("chunk_size", settings.chunk_bytes_min);
    figures.count("num_threads", settings.threads);
    figures.count("num_threads_per_udp", settings.threads);
    let delimiter = char::from(ctx.shared.prefixes.delimiter());
    figures.text("stat_key_prefix", &delimiter.to_string());
    figures.switch("detail_enabled", ctx.shared.prefixes.is_enabled());
    figures.count("reqs_per_event", settings.reqs_per_event);
    figures.switch("cas_enabled", settings.cas);
    figures.count("tcp_backlog", settings.backlog);
    figures.text("binding_protocol", settings.protocol.name());
    figures.switch("auth_enabled_sasl", settings.sasl);
    let auth_file = settings.auth_file.as_deref().unwrap_or(Path::new("no"));
    figures.text("auth_enabled_ascii", &auth_file.display().to_string());
    figures.bytes("item_size_max", settings.item_bytes_max);
    figures.switch("maxconns_fast", settings.maxconns_fast);
    figures.count("hashpower_init", settings.hashpower_init);
}

fn memory(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let settings = &ctx.shared.settings;
    knobs(ctx, PAGES, figures);
    figures.bytes("slab_chunk_max", settings.slab_chunk_bytes_max);
    knobs(ctx, CRAWLER, figures);
    figures.seconds("tail_repair_time", settings.tail_repair_time_s);
    figures.switch("flush_enabled", settings.flush_enabled);
    figures.switch("dump_enabled", settings.dump_enabled);
    figures.text("hash_algorithm", settings.hash_algorithm);
    knobs(ctx, LRU, figures);
    let ttl_s = ctx.cache.tuning.get(Knob::TemporaryTtl);
    figures.switch("temp_lru", ttl_s != OFF);
    let shown_s = if ttl_s == OFF { TEMPORARY_TTL_S } else { ttl_s };
    figures.seconds("temporary_ttl", shown_s);
}

fn buffers(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    let settings = &ctx.shared.settings;
    figures.seconds("idle_timeout", settings.idle_timeout_s);
    figures.bytes("watcher_logbuf_size", settings.watcher_logbuf_bytes);
    figures.bytes("worker_logbuf_size", settings.worker_logbuf_bytes);
    figures.bytes("read_buf_mem_limit", settings.read_buf_mem_limit_bytes);
    figures.switch("track_sizes", settings.track_sizes);
    figures.switch("inline_ascii_response", false);
}

/// What memcached shows of its storage on disk when it has none.
fn external_storage(ctx: Ctx<'_>, figures: &mut Figures<'_>) {
    figures.bytes("ext_item_size", 512u64);
    // Never.
    figures.seconds("ext_item_age", u32::MAX);
    figures.zeros(&["ext_low_ttl"]);
    figures.count("ext_recache_rate", 2000u64);
    figures.bytes("ext_wbuf_size", 4u64 << 20);
    figures.zeros(&["ext_compact_under", "ext_drop_under"]);
    figures.count("ext_max_sleep", 1_000_000u64);
    figures.ratio("ext_max_frag", 0.8, 2);
    knobs(ctx, FREE, figures);
    figures.switch("ext_drop_unread", false);
}

fn tls(tls: &Tls, figures: &mut Figures<'_>) {
    let path_or = |path: Option<&Path>, none: &str| {
        path.map_or_else(|| none.to_owned(), |path| path.display().to_string())
    };
    figures.switch("ssl_enabled", tls.enabled);
    let chain_cert = path_or(tls.chain_cert.as_deref(), "(null)");
    figures.text("ssl_chain_cert", &chain_cert);
    figures.text("ssl_key", &path_or(tls.key_file(), "(null)"));
    // OpenSSL's bits: 1 ask, 2 fail without one, 4 ask once.
    let verify_mode = [0u64, 1, 3, 7][usize::from(tls.verify_mode)];
    figures.count("ssl_verify_mode", verify_mode);
    // PEM.
    figures.count("ssl_keyformat", 1u64);
    figures.text("ssl_ciphers", tls.ciphers.as_deref().unwrap_or("NULL"));
    figures.text("ssl_ca_cert", &path_or(tls.ca_cert.as_deref(), "NULL"));
    figures.bytes("ssl_wbuf_size", tls.wbuf_bytes);
    figures.switch("ssl_session_cache", tls.session_cache);
    figures.switch("ssl_kernel_tls", false);
    figures.text("ssl_min_version", tls.min_version.name());
}
