//! The families of one sample, or of one a class: which figure of `stats` each shows.

use crate::admin::prometheus::Kind::{self, Counter, Gauge, Untyped};

/// A family of one sample: its name, kind and help, and the key of `stats` it shows.
pub(super) type Single = (&'static str, Kind, &'static str, &'static str);

pub(super) const GENERAL: &[Single] = &[
    (
        "memcached_uptime_seconds",
        Untyped,
        "Seconds since the server started.",
        "uptime",
    ),
    (
        "memcached_time_seconds",
        Gauge,
        "The server's clock, in seconds since 1970.",
        "time",
    ),
    (
        "memcached_process_user_cpu_seconds_total",
        Counter,
        "CPU time spent in the program.",
        "rusage_user",
    ),
    (
        "memcached_process_system_cpu_seconds_total",
        Counter,
        "CPU time spent in the kernel for the program.",
        "rusage_system",
    ),
    (
        "memcached_read_bytes_total",
        Counter,
        "Bytes read from clients.",
        "bytes_read",
    ),
    (
        "memcached_written_bytes_total",
        Counter,
        "Bytes sent to clients.",
        "bytes_written",
    ),
    (
        "memcached_accepting_connections",
        Gauge,
        "1 while new connections are accepted.",
        "accepting_conns",
    ),
    (
        "memcached_current_connections",
        Gauge,
        "Connections that are open.",
        "curr_connections",
    ),
    (
        "memcached_connections_total",
        Counter,
        "Connections accepted since the start.",
        "total_connections",
    ),
    (
        "memcached_connections_rejected_total",
        Counter,
        "Connections refused because there were too many.",
        "rejected_connections",
    ),
    (
        "memcached_connections_yielded_total",
        Counter,
        "Times a connection had to let others go first.",
        "conn_yields",
    ),
    (
        "memcached_connections_listener_disabled_total",
        Counter,
        "Times the listener stopped for want of room.",
        "listen_disabled_num",
    ),
    (
        "memcached_current_bytes",
        Gauge,
        "Bytes that items take.",
        "bytes",
    ),
    (
        "memcached_limit_bytes",
        Gauge,
        "Bytes that items may take.",
        "limit_maxbytes",
    ),
    (
        "memcached_current_items",
        Gauge,
        "Items in the cache.",
        "curr_items",
    ),
    (
        "memcached_items_total",
        Counter,
        "Items stored since the start.",
        "total_items",
    ),
    (
        "memcached_items_evicted_total",
        Counter,
        "Live items that gave way to others.",
        "evictions",
    ),
    (
        "memcached_items_reclaimed_total",
        Counter,
        "Stores that took the memory of an item whose time was over.",
        "reclaimed",
    ),
    (
        "memcached_item_too_large_total",
        Counter,
        "Stores refused because of their size.",
        "store_too_large",
    ),
    (
        "memcached_item_no_memory_total",
        Counter,
        "Stores refused for want of memory.",
        "store_no_memory",
    ),
    (
        "memcached_direct_reclaims_total",
        Counter,
        "Times a worker had to evict by itself.",
        "direct_reclaims",
    ),
    (
        "memcached_lru_crawler_starts_total",
        Counter,
        "Walks of the crawler.",
        "lru_crawler_starts",
    ),
    (
        "memcached_lru_crawler_reclaimed_total",
        Counter,
        "Items that the crawler found to be over.",
        "crawler_reclaimed",
    ),
    (
        "memcached_lru_crawler_items_checked_total",
        Counter,
        "Items that the crawler looked at.",
        "crawler_items_checked",
    ),
    (
        "memcached_lru_crawler_moves_to_cold_total",
        Counter,
        "Items moved to the cold segment.",
        "moves_to_cold",
    ),
    (
        "memcached_lru_crawler_moves_to_warm_total",
        Counter,
        "Items moved to the warm segment.",
        "moves_to_warm",
    ),
    (
        "memcached_lru_crawler_moves_within_lru_total",
        Counter,
        "Items moved to the head of their segment.",
        "moves_within_lru",
    ),
    (
        "memcached_round_robin_fallback_total",
        Counter,
        "Connections without a NAPI id.",
        "round_robin_fallback",
    ),
    (
        "memcached_unexpected_napi_ids_total",
        Counter,
        "Connections with an unexpected NAPI id.",
        "unexpected_napi_ids",
    ),
];

pub(super) const SETTINGS: &[Single] = &[
    (
        "memcached_max_connections",
        Gauge,
        "Connections that may be open.",
        "maxconns",
    ),
    (
        "memcached_lru_crawler_enabled",
        Gauge,
        "1 while the crawler may run.",
        "lru_crawler",
    ),
    (
        "memcached_lru_crawler_sleep",
        Gauge,
        "Microseconds the crawler sleeps between items.",
        "lru_crawler_sleep",
    ),
    (
        "memcached_lru_crawler_to_crawl",
        Gauge,
        "Items the crawler looks at in a walk.",
        "lru_crawler_tocrawl",
    ),
    (
        "memcached_lru_crawler_maintainer_thread",
        Gauge,
        "1 with a maintainer thread.",
        "lru_maintainer_thread",
    ),
    (
        "memcached_lru_crawler_hot_percent",
        Gauge,
        "Per cent of a class that the hot segment may take.",
        "hot_lru_pct",
    ),
    (
        "memcached_lru_crawler_warm_percent",
        Gauge,
        "Per cent of a class that the warm segment may take.",
        "warm_lru_pct",
    ),
    (
        "memcached_lru_crawler_hot_max_factor",
        Gauge,
        "Age of the hot segment, as a factor of the cold one's.",
        "hot_max_factor",
    ),
    (
        "memcached_lru_crawler_warm_max_factor",
        Gauge,
        "Age of the warm segment, as a factor of the cold one's.",
        "warm_max_factor",
    ),
];

/// Of each class, from `stats items`.
pub(super) const CLASS_ITEMS: &[Single] = &[
    (
        "memcached_slab_current_items",
        Gauge,
        "Items of the class.",
        "number",
    ),
    (
        "memcached_slab_items_age_seconds",
        Gauge,
        "Seconds since the oldest item was asked for.",
        "age",
    ),
    (
        "memcached_slab_hot_items",
        Gauge,
        "Items in the hot segment.",
        "number_hot",
    ),
    (
        "memcached_slab_warm_items",
        Gauge,
        "Items in the warm segment.",
        "number_warm",
    ),
    (
        "memcached_slab_cold_items",
        Gauge,
        "Items in the cold segment.",
        "number_cold",
    ),
    (
        "memcached_slab_temporary_items",
        Gauge,
        "Items in the segment for short times to live.",
        "number_temp",
    ),
    (
        "memcached_slab_hot_age_seconds",
        Gauge,
        "Age of the oldest item in the hot segment.",
        "age_hot",
    ),
    (
        "memcached_slab_warm_age_seconds",
        Gauge,
        "Age of the oldest item in the warm segment.",
        "age_warm",
    ),
    (
        "memcached_slab_mem_requested_bytes",
        Gauge,
        "Bytes that the items of the class asked for.",
        "mem_requested",
    ),
    (
        "memcached_slab_items_crawler_reclaimed_total",
        Counter,
        "Items that the crawler found to be over.",
        "crawler_reclaimed",
    ),
    (
        "memcached_slab_items_evicted_total",
        Counter,
        "Live items that gave way.",
        "evicted",
    ),
    (
        "memcached_slab_items_evicted_nonzero_total",
        Counter,
        "Of these the ones with an expiry.",
        "evicted_nonzero",
    ),
    (
        "memcached_slab_items_evicted_time_seconds",
        Untyped,
        "Seconds since the last evicted item was asked for.",
        "evicted_time",
    ),
    (
        "memcached_slab_items_evicted_unfetched_total",
        Counter,
        "Evicted items that nobody had read.",
        "evicted_unfetched",
    ),
    (
        "memcached_slab_items_expired_unfetched_total",
        Counter,
        "Expired items that nobody had read.",
        "expired_unfetched",
    ),
    (
        "memcached_slab_items_outofmemory_total",
        Counter,
        "Stores that found no memory.",
        "outofmemory",
    ),
    (
        "memcached_slab_items_reclaimed_total",
        Counter,
        "Stores that took the memory of an item whose time was over.",
        "reclaimed",
    ),
    (
        "memcached_slab_items_tailrepairs_total",
        Counter,
        "Items taken from a reader; none ever are.",
        "tailrepairs",
    ),
    (
        "memcached_slab_items_moves_to_cold",
        Untyped,
        "Items moved to the cold segment.",
        "moves_to_cold",
    ),
    (
        "memcached_slab_items_moves_to_warm",
        Untyped,
        "Items moved to the warm segment.",
        "moves_to_warm",
    ),
    (
        "memcached_slab_items_moves_within_lru",
        Untyped,
        "Items moved to the head of their segment.",
        "moves_within_lru",
    ),
];

/// Of each class, from `stats slabs`.
pub(super) const CLASS_SLABS: &[Single] = &[
    (
        "memcached_slab_chunk_size_bytes",
        Gauge,
        "Bytes of a chunk.",
        "chunk_size",
    ),
    (
        "memcached_slab_chunks_per_page",
        Gauge,
        "Chunks of a page.",
        "chunks_per_page",
    ),
    (
        "memcached_slab_current_pages",
        Gauge,
        "Pages of the class.",
        "total_pages",
    ),
    (
        "memcached_slab_current_chunks",
        Gauge,
        "Chunks of the class.",
        "total_chunks",
    ),
    (
        "memcached_slab_chunks_used",
        Gauge,
        "Chunks in use.",
        "used_chunks",
    ),
    (
        "memcached_slab_chunks_free",
        Gauge,
        "Chunks that are free.",
        "free_chunks",
    ),
    (
        "memcached_slab_chunks_free_end",
        Gauge,
        "Free chunks at the end of the last page.",
        "free_chunks_end",
    ),
];

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
