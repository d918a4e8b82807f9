//! memcached's families of one sample, or of one a class: which figure of `stats` each shows.

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
