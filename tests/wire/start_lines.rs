//! Lines that people start memcached with, in charts, compose files, units, CI and scripts: each starts, and `stats settings`
//! says what it asks for. Addresses are those of the loopback, and what would collide (ports, users, the background) is
//! set behind the line, where it wins.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Servers that are started at one time.
const AT_ONCE: usize = 8;

const MB: &str = "maxbytes";
const ITEM: &str = "item_size_max";
const CONNS: &str = "maxconns";
const INTER: &str = "inter";
const THREADS: &str = "num_threads";
const VERBOSE: &str = "verbosity";

/// The words of a line, `|` between them, and what `stats settings` must say; `maxbytes` in megabytes.
const LINES: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[(MB, "64"), (CONNS, "1024"), (THREADS, "4"), (INTER, "NULL")],
    ),
    ("-m|64", &[(MB, "64")]),
    // Kubernetes: a value in the word of its option.
    ("-m 64|-p 11211", &[(MB, "64")]),
    (
        "-m 8192|--extended=modern,track_sizes|-I 5m|-c 16384|-v|-u 11211",
        &[
            (MB, "8192"),
            (ITEM, "5242880"),
            (CONNS, "16384"),
            (VERBOSE, "1"),
            ("track_sizes", "yes"),
        ],
    ),
    (
        "-m 1024|--extended=modern,track_sizes|-I 5m|-c 16384|-v|-u 11211",
        &[(MB, "1024"), (ITEM, "5242880")],
    ),
    (
        "-m|1024|--extended=modern,track_sizes|-I|5m|-c|16384|-v|-u|11211",
        &[(MB, "1024"), (CONNS, "16384")],
    ),
    (
        "-m 2048|-o modern|-I 1m|-c 16384|-v",
        &[(MB, "2048"), (CONNS, "16384")],
    ),
    ("-m 1024|-o|modern|-v", &[(MB, "1024"), (VERBOSE, "1")]),
    // Said with more words than it takes.
    ("-m|64 MB|-b|-1|-D|ab", &[(MB, "64")]),
    ("-m 1.5g|--verbose=2", &[(MB, "1536"), (VERBOSE, "1")]),
    (
        "-o|modern=1,slab_reassign=1,hot_lru_pct=25%,watcher_logbuf_size=0",
        &[("slab_reassign", "yes"), ("hot_lru_pct", "25")],
    ),
    ("-I|2m|-o|no_chunked_items", &[(ITEM, "2097152")]),
    ("-o|ssl_min_version=0", &[("ssl_min_version", "tlsv1.2")]),
    (
        "memcached|-m 1024|-c 10000",
        &[(MB, "1024"), (CONNS, "10000")],
    ),
    (
        "memcached|-m=64|-o|modern|-v",
        &[(MB, "64"), (VERBOSE, "1")],
    ),
    ("memcached|--memory-limit=64|-o|modern|-v", &[(MB, "64")]),
    (
        "-m 100|-I 2m|-vv",
        &[(MB, "100"), (ITEM, "2097152"), (VERBOSE, "2")],
    ),
    (
        "-m 512|-t 8|-R 200|-c 4096",
        &[(MB, "512"), (THREADS, "8"), ("reqs_per_event", "200")],
    ),
    (
        "-I 10m|-m 4096|-c 20000",
        &[(MB, "4096"), (ITEM, "10485760"), (CONNS, "20000")],
    ),
    (
        "--port=11211|--memory-limit=64|--conn-limit=1024|--listen=0.0.0.0|--threads=4|--max-item-size=1m",
        &[(MB, "64"), (INTER, "0.0.0.0"), (THREADS, "4")],
    ),
    (
        "--memory-limit|256|--conn-limit|2048|--verbose",
        &[(MB, "256"), (CONNS, "2048"), (VERBOSE, "1")],
    ),
    (
        "--memory-limit 64|--max-item-size 2m",
        &[(MB, "64"), (ITEM, "2097152")],
    ),
    ("-m 64||-v", &[(MB, "64"), (VERBOSE, "1")]),
    ("|-m|128|", &[(MB, "128")]),
    // Compose files and images.
    ("memcached|-m|15", &[(MB, "15")]),
    ("memcached|-m|128", &[(MB, "128")]),
    ("memcached|-m|256", &[(MB, "256")]),
    ("memcached|-m|256|-c|1024", &[(MB, "256"), (CONNS, "1024")]),
    ("memcached|-m|256|-I|8m", &[(MB, "256"), (ITEM, "8388608")]),
    (
        "memcached|-I|40m|-m|100m",
        &[(MB, "100"), (ITEM, "41943040")],
    ),
    ("memcached|-u|root|-I|10m", &[(ITEM, "10485760")]),
    ("memcached|--listen=0.0.0.0|-p|11211", &[(INTER, "0.0.0.0")]),
    ("memcached|-vv", &[(VERBOSE, "2")]),
    (
        "memcached|-m|1024|-o|slab_reassign,slab_automove=2",
        &[(MB, "1024"), ("slab_automove", "2")],
    ),
    (
        "memcached|-m|128|-p|11211|-u|memcache|-l|0.0.0.0|-vv",
        &[(MB, "128"), (INTER, "0.0.0.0"), (VERBOSE, "2")],
    ),
    (
        "-m|2048|-c|4096|-I|5m|-t|4|-o|modern",
        &[(MB, "2048"), (ITEM, "5242880")],
    ),
    ("memcached|-m|64|-M", &[(MB, "64"), ("evictions", "off")]),
    ("memcached|-m|512m", &[(MB, "512")]),
    (
        "memcached|-m|1g|-c|100k",
        &[(MB, "1024"), (CONNS, "100000")],
    ),
    ("memcached|-m|256M|-I|4M", &[(MB, "256"), (ITEM, "4194304")]),
    ("memcached|-m|64|-l|127.0.0.1", &[(INTER, "127.0.0.1")]),
    // Units and the files that units read.
    ("-p|11211|-u|memcached|-m|64|-c|1024", &[(MB, "64")]),
    (
        "-p|11211|-u|memcached|-m|256|-c|1024|-l|127.0.0.1",
        &[(MB, "256"), (INTER, "127.0.0.1")],
    ),
    (
        "-p|11211|-u|memcached|-m|64|-c|1024|-l|127.0.0.1,::1",
        &[(INTER, "127.0.0.1,::1")],
    ),
    (
        "-u|memcached|-p|11211|-m|10000|-I|10m|-c|1024",
        &[(MB, "10000"), (ITEM, "10485760")],
    ),
    (
        "-m|64|-u|memcached|-c|1024|-I|1m|-U|11212|-p|11212|-l|0.0.0.0|-v",
        &[(INTER, "0.0.0.0"), (VERBOSE, "1")],
    ),
    (
        "-m|512|-p|11211|-u|memcached|-l|0.0.0.0|-c|2048|-t|8",
        &[(MB, "512"), (CONNS, "2048"), (THREADS, "8")],
    ),
    (
        "-l|127.0.0.1|-U|0|-o|modern",
        &[(INTER, "127.0.0.1"), ("udpport", "0")],
    ),
    ("-U|0|-o|modern", &[("udpport", "0")]),
    (
        "-m|64|-p|11211|-u|memcache|-l|127.0.0.1|-P|DIR/memcached.pid",
        &[(MB, "64"), (INTER, "127.0.0.1")],
    ),
    (
        "-vv|-u|nobody|-m|1024|-l|127.0.0.1|-p|11211",
        &[(MB, "1024"), (VERBOSE, "2")],
    ),
    (
        "-m|256|-t|2|-c|2048|-R|50|-b|2048",
        &[("tcp_backlog", "2048"), ("reqs_per_event", "50")],
    ),
    (
        "-m|64|-l|127.0.0.1;127.0.0.2",
        &[(INTER, "127.0.0.1;127.0.0.2")],
    ),
    (
        "-m|64|-l|127.0.0.1|-l|127.0.0.2",
        &[(INTER, "127.0.0.1,127.0.0.2")],
    ),
    ("-m|64|-l|localhost", &[(INTER, "localhost")]),
    (
        "-l|::|-m|100000|--extended=modern,hash_algorithm=jenkins|-R 2000",
        &[
            (MB, "100000"),
            ("hash_algorithm", "jenkins"),
            ("reqs_per_event", "2000"),
        ],
    ),
    (
        "-vv|-l|127.0.0.1|-p|11211|-c|5000|-U|0|-m|256",
        &[(CONNS, "5000"), (MB, "256")],
    ),
    ("-v|-p|11211|-U|0|-c|8192|-m|1024", &[(CONNS, "8192")]),
    (
        "-m|89088|-c|25000|-n|5|-f|1.05|-D|:|-o|slab_reassign,slab_automove",
        &[
            (MB, "89088"),
            ("growth_factor", "1.05"),
            ("chunk_size", "5"),
            ("stat_key_prefix", ":"),
            ("detail_enabled", "yes"),
        ],
    ),
    (
        "-m|1024|-c|1024|-f|1.25|-n|48|-t|4|-o|modern",
        &[("growth_factor", "1.25"), ("chunk_size", "48")],
    ),
    ("-k|-m|64", &[(MB, "64")]),
    ("-L|-m|256", &[(MB, "256")]),
    ("-r|-m|64", &[(MB, "64")]),
    (
        "-m|64|-o|lru_maintainer,lru_crawler,hash_algorithm=murmur3",
        &[("lru_crawler", "yes"), ("hash_algorithm", "murmur3")],
    ),
    (
        "-m|64|-o|maxconns_fast,hashpower=20,slab_reassign",
        &[("hashpower_init", "20"), ("maxconns_fast", "yes")],
    ),
    ("-m|64|-o|modern,drop_privileges", &[(MB, "64")]),
    (
        "-m|64|-c|1024|-l|127.0.0.1,::1|-o|modern,drop_privileges",
        &[(INTER, "127.0.0.1,::1")],
    ),
    (
        "-m|64|-o|no_modern",
        &[("lru_crawler", "no"), ("slab_reassign", "no")],
    ),
    (
        "-m|64|-o|idle_timeout=60,track_sizes",
        &[("idle_timeout", "60"), ("track_sizes", "yes")],
    ),
    (
        "-m|64|-o|hot_lru_pct=10,warm_lru_pct=30,hot_max_factor=0.25,temporary_ttl=30",
        &[
            ("hot_lru_pct", "10"),
            ("warm_lru_pct", "30"),
            ("temporary_ttl", "30"),
        ],
    ),
    ("-m|64|-o|slab_chunk_max=16", &[("slab_chunk_max", "16384")]),
    (
        "-m|64|-o|slab_chunk_max=512k",
        &[("slab_chunk_max", "524288")],
    ),
    (
        "-m|64|-o|no_lru_crawler,no_slab_automove",
        &[("lru_crawler", "no"), ("slab_automove", "0")],
    ),
    (
        "-m|64|-o|resp_obj_mem_limit=10,ssl_kernel_tls,sock_cookie_id=7|-N|2",
        &[(MB, "64")],
    ),
    (
        "-m|64|-o|inline_ascii_resp,relaxed_privileges",
        &[(MB, "64")],
    ),
    (
        "-m|64|-o|read_buf_mem_limit=128",
        &[("read_buf_mem_limit", "134217728")],
    ),
    ("-m|64|-o| modern, track_sizes", &[("track_sizes", "yes")]),
    // CI, test fixtures and clients' own suites.
    ("-m|64|-vv", &[(VERBOSE, "2")]),
    ("-A|-m|64", &[("shutdown_command", "yes")]),
    ("-B|ascii|-m|64", &[("binding_protocol", "ascii")]),
    (
        "-C|-F|-X|-W|-m|64",
        &[
            ("cas_enabled", "no"),
            ("flush_enabled", "no"),
            ("dump_enabled", "no"),
        ],
    ),
    ("-I|512k|-m|32", &[(ITEM, "524288"), (MB, "32")]),
    ("-m|10|-p|11212", &[(MB, "10")]),
    ("-t|1|-c|4096", &[(THREADS, "1"), (CONNS, "4096")]),
    (
        "-t4|-c32768|-m512",
        &[(THREADS, "4"), (CONNS, "32768"), (MB, "512")],
    ),
    ("-I|128m|-m|2048", &[(ITEM, "134217728")]),
    (
        "-p|11211|-t|10|-c|10000|-m|1024",
        &[(THREADS, "10"), (CONNS, "10000")],
    ),
    (
        "-t|4|-m|4096|-n|550",
        &[("chunk_size", "550"), (MB, "4096")],
    ),
    (
        "-m|12000|-c|45000|-t|8|-f|1.05",
        &[(MB, "12000"), (CONNS, "45000")],
    ),
    (
        "-p11211|-U0|-l127.0.0.1|-m64|-vvv",
        &[(VERBOSE, "3"), (INTER, "127.0.0.1")],
    ),
    ("-U|0|-p|11211|-m|24", &[(MB, "24")]),
    (
        "-s|DIR/memcached.sock|-a|0777|-m|64",
        &[("umask", "777"), (MB, "64")],
    ),
    ("-s|DIR/memcached.sock|-a|0755", &[("umask", "755")]),
    (
        "-vv|-s|DIR/memcached.sock|-m|100",
        &[(MB, "100"), (VERBOSE, "2")],
    ),
    (
        "-sDIR/memcached.sock",
        &[("domain_socket", "DIR/memcached.sock")],
    ),
    (
        "--unix-socket=DIR/memcached.sock|--unix-mask=0770",
        &[("umask", "770")],
    ),
    // Cut short.
    (
        "--memory-l|70|--con|50|--thr|2",
        &[(MB, "70"), (CONNS, "50"), (THREADS, "2")],
    ),
    (
        "--disable-c|--disable-f|--max-i|2m",
        &[
            ("cas_enabled", "no"),
            ("flush_enabled", "no"),
            (ITEM, "2097152"),
        ],
    ),
];

/// A directory of one line, removed with what is in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server, killed when its line is done.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the words and asks for the settings.
fn settings_of(words: &[String], dir: &Path) -> Result<BTreeMap<String, String>, String> {
    let ports = dir.join("ports");
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ketch"));
    command
        .args(words)
        .args(["-p", "-1", "-U", "0", "-u", "root"])
        .env("MEMCACHED_PORT_FILENAME", &ports)
        .env_remove("KETCH_LISTEN")
        .stdin(Stdio::null())
        .stderr(log);
    let mut server = Server(command.spawn().unwrap());
    let socket = dir.join("memcached.sock");
    let start = Instant::now();
    let mut text = String::new();
    loop {
        let ended = server.0.try_wait().unwrap();
        if ended.is_some() || start.elapsed() > PATIENCE {
            let log = fs::read_to_string(dir.join("log")).unwrap();
            return Err(format!("{ended:?}: {log}"));
        }
        let port = fs::read_to_string(&ports).unwrap_or_default();
        let address = port.lines().find_map(|line| {
            let (family, port) = line.strip_prefix("TCP ")?.split_once(": ")?;
            let host = if family == "INET" { "127.0.0.1" } else { "::1" };
            Some((host, port.parse::<u16>().ok()?))
        });
        let ask = b"stats settings\r\nquit\r\n";
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&socket) {
            stream.write_all(ask).unwrap();
            stream.read_to_string(&mut text).unwrap();
            break;
        }
        if let Some(mut stream) = address.and_then(|address| TcpStream::connect(address).ok()) {
            stream.write_all(ask).unwrap();
            stream.read_to_string(&mut text).unwrap();
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let stats = text.lines().filter_map(|line| {
        let (key, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
        Some((key.to_owned(), value.to_owned()))
    });
    Ok(stats.collect())
}

/// What is wrong with a line; empty if nothing is.
fn faults(index: usize, line: &str, expected: &[(&str, &str)]) -> Vec<String> {
    let name = format!("ketch-lines-{}-{index}", std::process::id());
    let dir = Scratch(std::env::temp_dir().join(name));
    fs::create_dir(&dir.0).unwrap();
    let in_dir = |text: &str| text.replace("DIR", &dir.0.display().to_string());
    let words: Vec<_> = line.split('|').map(in_dir).collect();
    let settings = match settings_of(&words, &dir.0) {
        Ok(settings) => settings,
        Err(why) => return vec![format!("{line}: does not start: {why}")],
    };
    let mut wrong = Vec::new();
    for (key, value) in expected {
        let value = match *key {
            MB => (value.parse::<u64>().unwrap() << 20).to_string(),
            _ => in_dir(value),
        };
        let told = settings.get(*key);
        if told != Some(&value) {
            wrong.push(format!("{line}: {key} is {told:?}, not {value}"));
        }
    }
    wrong
}

#[test]
fn lines_from_everywhere_start_and_do_what_they_say() {
    assert!(LINES.len() >= 80, "{}", LINES.len());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong: Vec<String> = thread::scope(|scope| {
        let runners: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let mut wrong = Vec::new();
                    loop {
                        let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some((line, expected)) = LINES.get(index) else {
                            return wrong;
                        };
                        wrong.extend(faults(index, line, expected));
                    }
                })
            })
            .collect();
        let ended = runners
            .into_iter()
            .flat_map(|runner| runner.join().unwrap());
        ended.collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}
