//! `stats settings`.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use super::lines::{Lines, loaded};
use crate::settings::Tls;
use crate::state::Ctx;

/// memcached's seconds for the TEMP segment, shown while it is not used.
const TEMPORARY_TTL_S: u32 = 61;

/// `stats settings`: what is in force now, commands included.
pub(crate) fn settings(ctx: Ctx<'_>, out: &mut Vec<u8>) {
    let (settings, tuning) = (&ctx.shared.settings, &ctx.cache.tuning);
    let mut lines = Lines { out };
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
