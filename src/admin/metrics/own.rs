//! ketch's own families of one sample: which figure of `stats` each shows.

use super::families::Single;
use crate::admin::prometheus::Kind::{Counter, Gauge};

/// Counters that memcached has no metric for, from `stats`.
pub(super) const OWN: &[Single] = &[
    (
        "ketch_get_expired_total",
        Counter,
        "Reads that found an item whose time was over.",
        "get_expired",
    ),
    (
        "ketch_get_flushed_total",
        Counter,
        "Reads that found a flushed item.",
        "get_flushed",
    ),
    (
        "ketch_meta_commands_total",
        Counter,
        "Meta commands.",
        "cmd_meta",
    ),
    (
        "ketch_expired_unfetched_total",
        Counter,
        "Expired items that nobody had read.",
        "expired_unfetched",
    ),
    (
        "ketch_evicted_unfetched_total",
        Counter,
        "Evicted items that nobody had read.",
        "evicted_unfetched",
    ),
    (
        "ketch_evicted_active_total",
        Counter,
        "Evicted items that had been asked for lately.",
        "evicted_active",
    ),
    (
        "ketch_auth_commands_total",
        Counter,
        "Logins tried.",
        "auth_cmds",
    ),
    (
        "ketch_auth_errors_total",
        Counter,
        "Logins refused.",
        "auth_errors",
    ),
    (
        "ketch_slab_pages_moved_total",
        Counter,
        "Pages moved from one class to another.",
        "slabs_moved",
    ),
    (
        "ketch_slab_pool_pages",
        Gauge,
        "Pages that no class has.",
        "slab_global_page_pool",
    ),
    (
        "ketch_hash_bytes",
        Gauge,
        "Bytes of the hash table.",
        "hash_bytes",
    ),
    ("ketch_threads", Gauge, "Worker threads.", "threads"),
    (
        "ketch_connections_max_allowed",
        Gauge,
        "Connections that there are descriptors for.",
        "max_connections",
    ),
    (
        "ketch_block_bytes",
        Gauge,
        "Bytes of values that have not come whole.",
        "ketch_block_bytes",
    ),
    (
        "ketch_blocks_timed_out_total",
        Counter,
        "Values given up because they did not come whole in time.",
        "ketch_blocks_timed_out",
    ),
    (
        "ketch_blocks_given_way_total",
        Counter,
        "Unfinished values that gave way to others.",
        "ketch_blocks_given_way",
    ),
    (
        "ketch_unread_bytes",
        Gauge,
        "Bytes of values in items that wait for readers to take them.",
        "ketch_unread_bytes",
    ),
    (
        "ketch_readers_given_way_total",
        Counter,
        "Connections closed because the values they did not take left no memory for a store.",
        "ketch_readers_given_way",
    ),
    (
        "ketch_watchers",
        Gauge,
        "Connections that watch lines.",
        "log_watchers",
    ),
    (
        "ketch_watcher_lines_sent_total",
        Counter,
        "Lines that watchers got.",
        "log_watcher_sent",
    ),
    (
        "ketch_watcher_lines_skipped_total",
        Counter,
        "Lines that watchers did not get as they were slow.",
        "log_watcher_skipped",
    ),
    (
        "ketch_watcher_lines_dropped_total",
        Counter,
        "Lines for which a thread had no room.",
        "log_worker_dropped",
    ),
    (
        "ketch_feed_readers",
        Gauge,
        "Connections that read the feed.",
        "ketch_feed_readers",
    ),
    (
        "ketch_feed_events_total",
        Counter,
        "Events that the feed has numbered.",
        "ketch_feed_events",
    ),
    (
        "ketch_feed_gaps_total",
        Counter,
        "How often a reader of the feed was told that it has missed something.",
        "ketch_feed_gaps",
    ),
    (
        "ketch_feed_bytes",
        Gauge,
        "Bytes of events kept for readers of the feed.",
        "ketch_feed_bytes",
    ),
    (
        "ketch_resident_bytes",
        Gauge,
        "Resident memory.",
        "ketch_resident_bytes",
    ),
    (
        "ketch_machine_bytes",
        Gauge,
        "Memory of the machine, or what its control group allows.",
        "ketch_machine_bytes",
    ),
    (
        "ketch_base_bytes",
        Gauge,
        "Of it what was resident before there was anything to cache.",
        "ketch_base_bytes",
    ),
    (
        "ketch_arena_bytes",
        Gauge,
        "Of it the pages of items.",
        "ketch_arena_bytes",
    ),
    (
        "ketch_beyond_limit_bytes",
        Gauge,
        "Bytes of pages that classes without one took beyond the memory limit.",
        "ketch_beyond_limit_bytes",
    ),
    (
        "ketch_table_bytes",
        Gauge,
        "Of it the hash table.",
        "ketch_table_bytes",
    ),
    (
        "ketch_policy_bytes",
        Gauge,
        "Of it what the eviction policy remembers.",
        "ketch_policy_bytes",
    ),
    (
        "ketch_insight_bytes",
        Gauge,
        "Of it what is kept of keys, latencies and misses.",
        "ketch_insight_bytes",
    ),
    (
        "ketch_connection_bytes",
        Gauge,
        "Of it what connections take.",
        "ketch_connection_bytes",
    ),
    (
        "ketch_buffer_bytes",
        Gauge,
        "Of it input and replies in progress.",
        "ketch_buffer_bytes",
    ),
    (
        "ketch_snapshot_running",
        Gauge,
        "1 while a snapshot is written.",
        "ketch_snapshot_running",
    ),
    (
        "ketch_snapshots_total",
        Counter,
        "Snapshots written.",
        "ketch_snapshot_written",
    ),
    (
        "ketch_snapshots_failed_total",
        Counter,
        "Snapshots that could not be written.",
        "ketch_snapshot_failed",
    ),
    (
        "ketch_snapshot_last_timestamp_seconds",
        Gauge,
        "When the last snapshot was complete, in seconds since 1970.",
        "ketch_snapshot_last_time",
    ),
    (
        "ketch_snapshot_last_items",
        Gauge,
        "Items of the last snapshot.",
        "ketch_snapshot_last_items",
    ),
    (
        "ketch_snapshot_last_bytes",
        Gauge,
        "Bytes of the last snapshot.",
        "ketch_snapshot_last_bytes",
    ),
    (
        "ketch_snapshot_last_duration_seconds",
        Gauge,
        "How long the last snapshot took.",
        "ketch_snapshot_last_seconds",
    ),
    (
        "ketch_log_on",
        Gauge,
        "1 while what happens is logged, 0 after an error.",
        "ketch_log_on",
    ),
    (
        "ketch_log_segment_bytes",
        Gauge,
        "Bytes logged since the last snapshot began.",
        "ketch_log_segment_bytes",
    ),
    (
        "ketch_log_bytes_total",
        Counter,
        "Bytes logged.",
        "ketch_log_bytes",
    ),
    (
        "ketch_log_commits_total",
        Counter,
        "Writes to the log.",
        "ketch_log_commits",
    ),
    (
        "ketch_log_syncs_total",
        Counter,
        "How often the log was synced.",
        "ketch_log_syncs",
    ),
    (
        "ketch_log_stops_total",
        Counter,
        "How often an error stopped the log.",
        "ketch_log_stops",
    ),
];

/// Of a proxy.
pub(super) const PROXY: &[Single] = &[
    (
        "memcached_proxy_conn_requests_total",
        Counter,
        "Requests that were passed on.",
        "conn_requests",
    ),
    (
        "memcached_proxy_conn_errors_total",
        Counter,
        "Requests that were answered with an error, since their nodes did not answer.",
        "conn_errors",
    ),
    (
        "memcached_proxy_conn_oom_total",
        Counter,
        "Requests refused for memory.",
        "conn_oom",
    ),
    (
        "memcached_proxy_req_active",
        Gauge,
        "Requests under way to nodes.",
        "req_active",
    ),
    (
        "memcached_proxy_config_reloads_total",
        Counter,
        "How often the routes were read again.",
        "config_reloads",
    ),
    (
        "memcached_proxy_config_reload_fails_total",
        Counter,
        "How often they had a fault.",
        "config_reload_fails",
    ),
    (
        "memcached_proxy_backend_total",
        Gauge,
        "Nodes of all pools.",
        "backend_total",
    ),
    (
        "memcached_proxy_backend_failed",
        Gauge,
        "Nodes that are left out now.",
        "backend_failed",
    ),
    (
        "memcached_proxy_backend_marked_bad_total",
        Counter,
        "Connections to nodes that failed with requests on them.",
        "backend_marked_bad",
    ),
    (
        "memcached_proxy_request_failed_depth_total",
        Counter,
        "Requests refused since proxies lead to each other in a circle.",
        "request_failed_depth",
    ),
    (
        "ketch_proxy_timeouts_total",
        Counter,
        "Requests that a node did not answer in time.",
        "timeouts",
    ),
    (
        "ketch_proxy_misses_made_total",
        Counter,
        "Reads answered as misses, since their nodes did not answer.",
        "misses_made",
    ),
    (
        "ketch_proxy_lanes_opened_total",
        Counter,
        "Connections made to nodes.",
        "lanes_opened",
    ),
    (
        "ketch_proxy_garbage_total",
        Counter,
        "Connections closed since a node answered what is no reply.",
        "garbage",
    ),
];

/// Of `stats restart`, with a memory file.
pub(super) const RESTART: &[Single] = &[
    (
        "ketch_restart_items_kept",
        Gauge,
        "Items that came up.",
        "memory_file_items",
    ),
    (
        "ketch_restart_down_seconds",
        Gauge,
        "From the last sign of life of the server before to the start of this one.",
        "memory_file_down_time",
    ),
];
