//! `ketchctl snapshot` and `ketchctl load` as processes, from and to stock memcached and ketch.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::copy::{check_ttl, client, count_of, fill, key, list, servers, value};
use super::run::{stdout, told};
use ketch_client::Client;
use ketch_testing::Kind;

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ketchctl-snapshot-{}-{nth}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn file(&self) -> String {
        self.0.join("items").display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ITEMS: u32 = 8000;

#[track_caller]
fn check_all(client: &Client) {
    let indices: Vec<u32> = (0..ITEMS).collect();
    for some in indices.chunks(500) {
        let keys: Vec<Vec<u8>> = some.iter().map(|&index| key(index)).collect();
        for (&index, found) in some.iter().zip(client.get_multi(&keys)) {
            let item = found
                .expect("up")
                .unwrap_or_else(|| panic!("{index} is missing"));
            assert!(item.value[..] == value(index)[..], "{index}");
            assert_eq!(item.flags, index);
        }
    }
}

/// From one node to a file, to a ring of the other kind, and to a server that starts with it.
#[test]
fn a_node_in_a_file_fills_a_ring_and_a_server() {
    for (from, to) in [
        (Kind::Memcached, Kind::Ketch),
        (Kind::Ketch, Kind::Memcached),
    ] {
        let (folder, sources, targets) = (Folder::new(), servers(from, 1), servers(to, 3));
        let source = client(&sources);
        fill(&source, ITEMS);
        let file = folder.file();
        let summary = stdout(&["snapshot", "-s", &list(&sources), &file, "-t", "20"], "");
        assert_eq!(count_of(&summary, " items,"), u64::from(ITEMS), "{summary}");
        let mode = fs::metadata(&file)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        let to = list(&targets);
        let summary = stdout(&["load", &file, "--to", &to, "-t", "20"], "");
        assert_eq!(count_of(&summary, " items,"), u64::from(ITEMS), "{summary}");
        check_all(&client(&targets));
        for index in (1..ITEMS).filter(|index| index % 10 != 0 && index % 97 == 2) {
            targets.iter().for_each(|target| check_ttl(target, index));
        }
        // What is there already stays.
        let summary = stdout(&["load", &file, "--to", &to], "");
        assert_eq!(
            count_of(&summary, " were there"),
            u64::from(ITEMS),
            "{summary}"
        );

        let option = format!("snapshot={file}");
        let server = Kind::Ketch.start_with(&["-m", "128", "-o", &option]);
        assert_eq!(server.stat("curr_items"), u64::from(ITEMS));
        check_all(&client(std::slice::from_ref(&server)));
        check_ttl(&server, 1);
        check_ttl(&server, 2);
    }
}

/// The file of a server fills a ring, cut or damaged too, and says so.
#[test]
fn a_servers_file_fills_a_ring_as_far_as_it_goes() {
    let (folder, targets) = (Folder::new(), servers(Kind::Memcached, 2));
    let file = folder.file();
    let option = format!("snapshot={file},snapshot_compress=lz4");
    let mut server = Kind::Ketch.start_with(&["-m", "128", "-o", &option]);
    let source = client(std::slice::from_ref(&server));
    fill(&source, ITEMS);
    let before = server.stat("ketch_snapshot_written");
    server.ask("snapshot\r\n", "OK\r\n");
    ketch_testing::wait_until("the snapshot", || {
        server.stat("ketch_snapshot_written") > before
    });
    server.kill();
    let whole = fs::read(&file).expect("it is there");
    let to = list(&targets);
    fs::write(&file, &whole[..whole.len() / 2]).expect("written");
    let (status, summary, error) = told(&["load", &file, "--to", &to, "-t", "20"]);
    assert_eq!(status, 1, "{summary}");
    assert!(error.contains("it is cut"), "{error}");
    let mut damaged = whole.clone();
    damaged[whole.len() / 3] ^= 4;
    fs::write(&file, &damaged).expect("written");
    let (status, summary, error) = told(&["load", &file, "--to", &to, "-t", "20"]);
    assert_eq!(status, 1, "{summary}");
    assert!(error.contains("1 blocks are damaged or missing"), "{error}");
    fs::write(&file, &whole).expect("written");
    let (status, summary, error) = told(&["load", &file, "--to", &to, "-t", "20"]);
    assert_eq!((status, error.as_str()), (0, ""), "{summary}");
    check_all(&client(&targets));
}

#[test]
fn what_cannot_be_done_says_why() {
    let folder = Folder::new();
    let file = folder.file();
    fs::write(&file, b"#!/bin/sh").expect("written");
    let nobody = ketch_testing::nobody();
    let (status, _, error) = told(&["load", &file, "--to", &nobody]);
    assert_eq!(status, 1);
    assert!(error.contains("too short to be a snapshot"), "{error}");
    let (status, _, error) = told(&["snapshot", "-s", &nobody, &file]);
    assert_eq!(status, 1, "{error}");
    assert_eq!(fs::read(&file).expect("it stays"), b"#!/bin/sh");
    for words in [
        &["snapshot", "-s", "a,b", "file"][..],
        &["snapshot", "-s", "a"],
        &["load", "file"],
        &["load", "--to", "a"],
    ] {
        assert_eq!(told(words).0, 2, "{words:?}");
    }
}
