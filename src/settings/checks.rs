//! Checks of options against each other.

use super::given::Given;
use super::register::Register;
use super::tls::ClientCert;
use super::{LogSync, PAGE_BYTES, Settings, SettingsError, blame};

/// Those about sizes.
pub(super) fn sizes(settings: &mut Settings, given: &[Given]) -> Result<(), SettingsError> {
    let was_given = |long| given.iter().any(|one| one.is(long));
    if settings.item_bytes_max > settings.memory_limit_bytes / 2 {
        let (memory, item) = (
            settings.memory_limit_bytes >> 20,
            settings.item_bytes_max >> 10,
        );
        return Err(if was_given("max-item-size") {
            let reason = format!("item size must be at most half of the memory limit, -m {memory}");
            blame(given, &["max-item-size"], reason)
        } else {
            let reason = format!("memory limit must be at least twice the item size, -I {item}k");
            blame(given, &["memory-limit"], reason)
        });
    }

    // Classes of chunks this large need a largest one that is larger: memcached's.
    if !was_given("slab_chunk_max") && 2 * settings.chunk_bytes_min > settings.slab_chunk_bytes_max
    {
        settings.slab_chunk_bytes_max = settings.slab_chunk_bytes_max.max(PAGE_BYTES / 2);
    }

    let whole_items = was_given("no_chunked_items") && settings.slab_chunk_bytes_max == PAGE_BYTES;
    if settings.slab_chunk_bytes_max > settings.item_bytes_max {
        if was_given("slab_chunk_max") && !whole_items {
            let item = settings.item_bytes_max >> 10;
            let reason = format!("slab_chunk_max must be at most the item size, -I {item}k");
            return Err(blame(given, &["slab_chunk_max"], reason));
        }
        settings.slab_chunk_bytes_max = settings.item_bytes_max;
    }

    let chunk_max = settings.slab_chunk_bytes_max;
    if settings.chunk_bytes_min >= chunk_max {
        let (least, most) = (settings.chunk_bytes_min, chunk_max);
        settings.notices.push(format!(
            "-n {least}: chunks have {most} bytes at most, so all have them"
        ));
    }
    if settings
        .slab_sizes
        .iter()
        .any(|&size| size < settings.chunk_bytes_min || size > chunk_max)
    {
        let reason = format!(
            "slab sizes must be {} to {chunk_max} bytes",
            settings.chunk_bytes_min
        );
        return Err(blame(given, &["slab_sizes"], reason));
    }
    Ok(())
}

/// Those about TLS, once the listeners are known.
pub(super) fn tls(settings: &mut Settings, given: &[Given]) -> Result<(), SettingsError> {
    let tls = &settings.tls;
    if !tls.enabled {
        if tls.chain_cert.is_some() || tls.key.is_some() {
            settings.notices.push(
                "-o ssl_.. has no effect without -Z: connections are not encrypted".to_owned(),
            );
        }
        return Ok(());
    }
    if tls.chain_cert.is_none() {
        let reason = "needs -o ssl_chain_cert=FILE, and ssl_key=FILE if the key is not in it";
        return Err(blame(given, &["enable-ssl"], reason));
    }
    let asks = |cert| matches!(cert, ClientCert::Optional | ClientCert::Required);
    if tls.ca_cert.is_none() {
        let mut certs = settings.listen.iter().filter_map(|listen| listen.tls);
        let asking = certs.find(|cert| asks(*cert));
        if let Some(cert) = asking {
            let mut notice =
                "without -o ssl_ca_cert there are no roots, and no client certificate holds: "
                    .to_owned();
            notice.push_str(match cert {
                ClientCert::Required => "nobody can connect where one is required",
                _ => "who shows one is refused, who shows none is let in",
            });
            settings.notices.push(notice);
        }
    }
    if settings.unix_socket.is_some() {
        settings
            .notices
            .push("-Z has no effect with -s: a unix socket is not encrypted".to_owned());
    }
    Ok(())
}

/// Those about HTTP.
pub(super) fn http(settings: &mut Settings, given: &[Given]) -> Result<(), SettingsError> {
    let http = &settings.http;
    if http.listen.is_empty() {
        for (is_given, name) in [
            (http.token_file.is_some(), "--http-token-file"),
            (http.tls, "--http-tls"),
        ] {
            if is_given {
                let notice = format!("{name} has no effect without --http");
                settings.notices.push(notice);
            }
        }
        return Ok(());
    }
    if http.tls && !settings.tls.enabled {
        let reason = "needs -Z and its certificates";
        return Err(blame(given, &["http-tls"], reason));
    }
    if http.token_file.is_some() {
        return Ok(());
    }
    if settings.login().is_some() {
        let reason =
            "clients have to log in, and over HTTP nobody would: it needs --http-token-file FILE";
        return Err(blame(given, &["http"], reason));
    }
    if http.listen.iter().any(|addr| !addr.ip().is_loopback()) {
        settings.notices.push(
            "--http without --http-token-file: whoever reaches the port reads and writes all keys"
                .to_owned(),
        );
    }
    Ok(())
}

/// Those about snapshots and the log.
pub(super) fn snapshot(settings: &mut Settings, given: &[Given]) -> Result<(), SettingsError> {
    let (snapshot, log) = (&settings.snapshot, &settings.log);
    if log.file.is_none() && log.sync != LogSync::default() {
        let notice = "-o log_sync has no effect without -o log=FILE";
        settings.notices.push(notice.to_owned());
    }
    if snapshot.file.is_some() {
        if log.file == snapshot.file {
            let reason = "log and snapshot must be different files";
            return Err(blame(given, &["log"], reason));
        }
        return Ok(());
    }
    if log.file.is_some() {
        let reason = "needs -o snapshot=FILE, where what it has is put together";
        return Err(blame(given, &["log"], reason));
    }
    for (is_given, name) in [
        (snapshot.interval_s > 0, "snapshot_interval"),
        (snapshot.rate_bytes > 0, "snapshot_rate"),
        (snapshot.compressed, "snapshot_compress"),
    ] {
        if is_given {
            let notice = format!("-o {name} has no effect without -o snapshot=FILE");
            settings.notices.push(notice);
        }
    }
    Ok(())
}

/// What goes with `register` has no effect without it; with it there must be something to register.
pub(super) fn register(settings: &mut Settings, given: &[Given]) -> Result<(), SettingsError> {
    const BESIDE: [&str; 6] = [
        "node_name",
        "node_address",
        "node_zone",
        "node_weight",
        "node_lease",
        "leave_share",
    ];
    let was_given = |name: &&str| given.iter().any(|one| one.is(name));
    if settings.register.url.is_empty() {
        let is_told = settings.register != Register::default();
        if let Some(name) = BESIDE.iter().find(|name| is_told && was_given(name)) {
            settings
                .notices
                .push(format!("-o {name} has no effect without -o register"));
        }
        return Ok(());
    }
    if settings.unix_socket.is_some() {
        let reason = "a server on a unix socket (-s) has no address that others reach";
        return Err(blame(given, &["register"], reason));
    }
    Ok(())
}
