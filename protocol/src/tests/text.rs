//! Vectors of the classic commands.

use super::{check, check_all, show};
use crate::text::parse;
use crate::{AdminVerb, KEY_LEN_MAX, LINE_LEN_MAX, Parsed, Request};

#[test]
fn retrieval() {
    check_all(&[
        ("get k", "get key=k"),
        ("get  a   bc  ", "get key=a key=bc"),
        ("get noreply", "get key=noreply"),
        ("get HTTP/1.1", "get key=HTTP/1.1"),
        ("get a\tb\x01\u{e9}", "get key=a\\tb\\x01\\xc3\\xa9"),
        ("get a\rb", "get key=a\\rb"),
        ("gets k", "gets key=k"),
        ("gets a b", "gets key=a key=b"),
        ("gat 0 k", "get touch=0 key=k"),
        ("gat -1 a b", "get touch=-1 key=a key=b"),
        ("gats 2147483647 k", "gets touch=2147483647 key=k"),
        ("get", "BadFormat"),
        ("get ", "BadFormat"),
        ("gets   ", "BadFormat"),
        ("gat", "BadFormat"),
        ("gat 0", "BadFormat"),
        ("gat x", "BadFormat"),
        ("gat 0 ", "BadFormat"),
        ("gat k k", "InvalidExptime"),
        ("gat 1x k", "InvalidExptime"),
        ("gats 2147483648 k", "gets touch=2147483648 key=k"),
        ("gats 9223372036854775808 k", "InvalidExptime"),
    ]);
}

#[test]
fn config() {
    check_all(&[
        ("config", "Config"),
        ("config get cluster", "Config arg=get arg=cluster"),
        (
            "config delete cluster noreply",
            "Config arg=delete arg=cluster noreply",
        ),
        (
            "config set cluster 1 2",
            "config set name=cluster flags=1 len=2",
        ),
        (
            "config  add  x  0  0  noreply",
            "config add name=x flags=0 len=0 noreply",
        ),
        (
            "config set cluster 0 2147483645",
            "config set name=cluster flags=0 len=2147483645",
        ),
        ("config set", "BadFormat"),
        ("config set cluster", "BadFormat"),
        ("config set cluster 0", "BadFormat"),
        ("config set cluster 0 x", "BadFormat"),
        ("config set cluster 0 -1", "BadFormat"),
        ("config set cluster 0 2147483646", "BadFormat skip all"),
        ("config set cluster x 3", "BadFormat skip 5"),
        (
            "config set cluster 4294967296 3 noreply",
            "BadFormat quiet skip 5",
        ),
    ]);
}

#[test]
fn only_the_last_carriage_return_is_part_of_the_line_end() {
    assert_eq!(show(parse(b"get k \r\n")), "get key=k");
    assert_eq!(show(parse(b"get k\r\r\n")), "get key=k\\r");
    assert_eq!(show(parse(b"set k 0 0 1\r\r\n")), "BadFormat");
    assert_eq!(show(parse(b"version\r\r\n")), "Error");
}

#[test]
fn storage() {
    check_all(&[
        ("set k 1 2 3", "Set key=k flags=1 exptime=2 len=3"),
        ("set  k  1  2  3  ", "Set key=k flags=1 exptime=2 len=3"),
        ("set k 0 0 0", "Set key=k flags=0 exptime=0 len=0"),
        ("set k +7 +60 0", "Set key=k flags=7 exptime=60 len=0"),
        ("set k -0 -0 -0", "Set key=k flags=0 exptime=0 len=0"),
        (
            "cas k 0 4294967295 1 5",
            "Set key=k flags=0 exptime=-1 len=1 compare=5",
        ),
        (
            "set k 4294967295 -1 2147483645",
            "Set key=k flags=4294967295 exptime=-1 len=2147483645",
        ),
        (
            "set k 0 -2147483648 1",
            "Set key=k flags=0 exptime=-1 len=1",
        ),
        (
            "set k 0 0 5 noreply",
            "Set key=k flags=0 exptime=0 len=5 noreply",
        ),
        (
            "set k 0 0 5 noreply ",
            "Set key=k flags=0 exptime=0 len=5 noreply",
        ),
        (
            "set k 0 0 5 x noreply",
            "Set key=k flags=0 exptime=0 len=5 noreply",
        ),
        ("set k 0 0 5 noreply x", "Set key=k flags=0 exptime=0 len=5"),
        ("set k 0 0 5 NOREPLY", "Set key=k flags=0 exptime=0 len=5"),
        (
            "set noreply 0 0 5",
            "Set key=noreply flags=0 exptime=0 len=5",
        ),
        ("add k 1 2 3", "Add key=k flags=1 exptime=2 len=3"),
        (
            "add k 1 2 3 noreply",
            "Add key=k flags=1 exptime=2 len=3 noreply",
        ),
        ("replace k 1 2 3", "Replace key=k flags=1 exptime=2 len=3"),
        (
            "replace k 1 2 3 noreply",
            "Replace key=k flags=1 exptime=2 len=3 noreply",
        ),
        ("append k 1 2 3", "Append key=k flags=1 exptime=2 len=3"),
        (
            "append k 1 2 3 noreply",
            "Append key=k flags=1 exptime=2 len=3 noreply",
        ),
        ("prepend k 1 2 3", "Prepend key=k flags=1 exptime=2 len=3"),
        (
            "prepend k 1 2 3 noreply",
            "Prepend key=k flags=1 exptime=2 len=3 noreply",
        ),
        (
            "cas k 1 2 3 4",
            "Set key=k flags=1 exptime=2 len=3 compare=4",
        ),
        (
            "cas k 1 2 3 4 noreply",
            "Set key=k flags=1 exptime=2 len=3 compare=4 noreply",
        ),
        (
            "cas k 0 0 1 18446744073709551615",
            "Set key=k flags=0 exptime=0 len=1 compare=18446744073709551615",
        ),
    ]);
}

#[test]
fn a_refused_store_names_its_data() {
    check_all(&[
        ("set k x 0 5", "BadFormat skip 7"),
        ("set k -1 0 5", "BadFormat skip 7"),
        ("set k 4294967296 0 5", "BadFormat skip 7"),
        ("set k 0 x 5", "BadFormat skip 7"),
        ("set k 0 9223372036854775808 5", "BadFormat skip 7"),
        ("set k 0 -9223372036854775809 5", "BadFormat skip 7"),
        ("set k 0 ++1 5", "BadFormat skip 7"),
        ("set k 0 + 5", "BadFormat skip 7"),
        ("set k 0 +-1 5", "BadFormat skip 7"),
        ("set k +-0 0 5", "BadFormat skip 7"),
        ("set k - 0 5", "BadFormat skip 7"),
        ("set k x 0 5 noreply", "BadFormat quiet skip 7"),
        ("add k 0 0x 5 noreply", "BadFormat quiet skip 7"),
        ("cas k 0 0 5", "BadFormat skip 7"),
        ("cas k 0 0 5 x", "BadFormat skip 7"),
        ("cas k 0 0 5 -1", "BadFormat skip 7"),
        ("cas k 0 0 5 18446744073709551616", "BadFormat skip 7"),
        ("cas k 0 0 5 noreply", "BadFormat quiet skip 7"),
        ("cas k 0 0 5 x noreply", "BadFormat quiet skip 7"),
        ("set k 0 0 2147483646", "BadFormat skip all"),
        ("set k 0 0 4294967296 noreply", "BadFormat skip all"),
        ("set k 0 0 18446744073709551615", "BadFormat skip all"),
        ("set k 0 0 18446744073709551616", "BadFormat skip all"),
        ("set k x 0 1073741824", "BadFormat skip 1073741826"),
        ("set k x 0 1073741825", "BadFormat skip all"),
        ("set k x 0 1073741825 noreply", "BadFormat quiet skip all"),
    ]);
}

#[test]
fn a_store_of_no_known_length_names_nothing() {
    check_all(&[
        ("set", "BadFormat"),
        ("set k", "BadFormat"),
        ("set k 0", "BadFormat"),
        ("set k 0 0", "BadFormat"),
        ("set k 0 0 noreply", "BadFormat"),
        ("set k 0 0 -1", "BadFormat"),
        ("set k 0 0 -1 noreply", "BadFormat"),
        ("set k 0 0 5x", "BadFormat"),
        ("cas k 0 0", "BadFormat"),
        ("append k 0 0 +5", "BadFormat"),
    ]);
}

#[test]
fn delete_arith_and_touch() {
    check_all(&[
        ("delete k", "delete key=k"),
        ("delete k noreply", "delete key=k noreply"),
        ("delete k 0", "delete key=k"),
        ("delete k 0 noreply", "delete key=k noreply"),
        ("delete k 300", "delete key=k"),
        ("delete noreply", "delete key=noreply"),
        ("delete", "BadFormat"),
        ("delete a b c", "BadFormat"),
        ("delete a b c d", "BadFormat"),
        ("delete a b c noreply", "BadFormat quiet"),
        ("incr k 1", "incr key=k delta=1 value"),
        (
            "incr k 18446744073709551615 noreply",
            "incr key=k delta=18446744073709551615 value noreply",
        ),
        ("incr k 1 x", "incr key=k delta=1 value"),
        ("incr noreply 1", "incr key=noreply delta=1 value"),
        ("decr k 2", "decr key=k delta=2 value"),
        ("decr k 2 noreply", "decr key=k delta=2 value noreply"),
        ("incr", "BadFormat"),
        ("incr k", "BadFormat"),
        ("decr noreply", "BadFormat"),
        ("incr k x", "InvalidDelta"),
        ("incr k -1", "InvalidDelta"),
        ("incr k 18446744073709551616", "InvalidDelta"),
        ("decr k x noreply", "InvalidDelta quiet"),
        ("decr k noreply", "InvalidDelta quiet"),
        ("touch k 5", "touch key=k exptime=5"),
        ("touch k -1 noreply", "touch key=k exptime=-1 noreply"),
        ("touch k 5 x", "touch key=k exptime=5"),
        ("touch", "BadFormat"),
        ("touch k", "BadFormat"),
        ("touch k x", "InvalidExptime"),
        ("touch k 9223372036854775808", "InvalidExptime"),
        ("touch k +1", "InvalidExptime"),
        ("touch k 2147483648", "touch key=k exptime=2147483648"),
        ("touch k 4294967295", "touch key=k exptime=-1"),
        ("touch k noreply", "InvalidExptime quiet"),
    ]);
}

#[test]
fn commands_about_the_server() {
    check_all(&[
        ("flush_all", "FlushAll"),
        ("flush_all 10", "FlushAll arg=10"),
        ("flush_all noreply", "FlushAll noreply"),
        ("flush_all 10 noreply", "FlushAll arg=10 noreply"),
        ("version", "Version"),
        ("version noreply", "Version noreply"),
        ("verbosity", "Verbosity"),
        ("verbosity 1", "Verbosity arg=1"),
        ("verbosity noreply", "Verbosity noreply"),
        ("verbosity 1 noreply ", "Verbosity arg=1 noreply"),
        ("quit", "Quit"),
        ("quit noreply", "Quit arg=noreply"),
        ("shutdown", "Shutdown"),
        ("shutdown graceful", "Shutdown arg=graceful"),
        ("stats", "Stats"),
        ("stats  cachedump 1  0", "Stats arg=cachedump arg=1 arg=0"),
        ("stats noreply", "Stats arg=noreply"),
        ("watch", "Watch"),
        (
            "watch fetchers mutations",
            "Watch arg=fetchers arg=mutations",
        ),
        ("cache_memlimit 64", "CacheMemlimit arg=64"),
        ("cache_memlimit 64 noreply", "CacheMemlimit arg=64 noreply"),
        ("refresh_certs", "RefreshCerts"),
        ("snapshot", "Snapshot"),
        ("slabs reassign -1 5", "Slabs arg=reassign arg=-1 arg=5"),
        (
            "slabs automove 0 noreply",
            "Slabs arg=automove arg=0 noreply",
        ),
        ("lru mode flat", "Lru arg=mode arg=flat"),
        (
            "lru_crawler metadump all",
            "LruCrawler arg=metadump arg=all",
        ),
        ("extstore item_age 5", "Extstore arg=item_age arg=5"),
        ("debugtime p", "DebugTime arg=p"),
    ]);
}

#[test]
fn no_command_of_ours() {
    check_all(&[
        ("", "BadFormat"),
        ("\r", "BadFormat"),
        (" ", "BadFormat"),
        ("q", "BadFormat"),
        ("qu", "Error"),
        ("q ", "Error"),
        ("  ", "Error"),
        (" get k", "Error"),
        (" noreply", "Error quiet"),
        ("GET k", "Error"),
        ("Set k 0 0 1", "Error"),
        ("getx k", "Error"),
        ("get\tk", "Error"),
        ("stat", "Error"),
        ("flush", "Error"),
        ("free_memchunks 1 1", "Error"),
        ("boguscommand slkdsldkfjsd", "Error"),
        ("boguscommand noreply", "Error quiet"),
        ("GET / HTTP/1.1", "hang up"),
        ("POST /index.html HTTP/1.0", "hang up"),
        ("HTTP/1.1", "Error"),
        ("GET / http/1.1", "Error"),
    ]);
}

#[test]
fn key_lengths() {
    let longest = "k".repeat(KEY_LEN_MAX);
    let too_long = "k".repeat(KEY_LEN_MAX + 1);
    check(format!("get {longest}"), &format!("get key={longest}"));
    check(
        format!("gets a {longest} b"),
        &format!("gets key=a key={longest} key=b"),
    );
    check(
        format!("set {longest} 0 0 1"),
        &format!("Set key={longest} flags=0 exptime=0 len=1"),
    );
    check(
        format!("delete {longest}"),
        &format!("delete key={longest}"),
    );
    for (line, answer) in [
        ("get K", "BadFormat"),
        ("get a K", "BadFormat"),
        ("get K a b", "BadFormat"),
        ("gets a K b", "BadFormat"),
        ("gat 0 K", "BadFormat"),
        ("gat x K", "InvalidExptime"),
        ("set K 0 0 5", "BadFormat skip 7"),
        ("set K 0 0 5 noreply", "BadFormat quiet skip 7"),
        ("cas K 0 0 5 1", "BadFormat skip 7"),
        ("delete K", "BadFormat"),
        ("delete K noreply", "BadFormat quiet"),
        ("incr K 1", "BadFormat"),
        ("decr K x noreply", "BadFormat quiet"),
        ("touch K 1", "BadFormat"),
        ("touch K 1 noreply", "BadFormat quiet"),
    ] {
        check(line.replace('K', &too_long), answer);
    }
}

#[test]
fn a_line_too_long_ends_the_connection() {
    let longest = format!("stats {}", "x".repeat(LINE_LEN_MAX - 6));
    let mut wire = longest.into_bytes();
    assert_eq!(parse(&wire), Parsed::Incomplete);
    let whole = [&wire, &b"\n"[..]].concat();
    let Parsed::Complete {
        request: Request::Admin(admin),
        ..
    } = parse(&whole)
    else {
        panic!("a line of LINE_LEN_MAX bytes is taken");
    };
    assert_eq!(admin.verb, AdminVerb::Stats);
    wire.push(b'x');
    assert_eq!(parse(&wire), Parsed::HangUp, "without its end");
    wire.push(b'\n');
    assert_eq!(parse(&wire), Parsed::HangUp, "with its end");
    for flood in [&b" "[..], b"get", b"get k", b"\0", b"\r"] {
        let wire = flood.repeat(2 * LINE_LEN_MAX);
        if flood != b"get k" {
            assert_eq!(show(parse(&wire)), "hang up", "{}", flood.escape_ascii());
        }
    }
    let gat = format!("gat x {}", "key ".repeat(LINE_LEN_MAX));
    assert_eq!(parse(gat.as_bytes()), Parsed::HangUp);
}
