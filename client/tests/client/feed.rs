//! The reader of a feed, against servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_client::feed::{Ask, Event, Feed, Form, Key, Lost, Place, What};
use ketch_client::metrics::Recorder;
use ketch_client::near::NearCache;
use ketch_client::{Client, ClientOptions, Node};
use ketch_testing::{Kind, PATIENCE, Server, wait_until};

use crate::as_node::AsNode;
use crate::patience::patient;

/// Patient with a busy machine.
fn ask() -> Ask {
    Ask::default().silence(PATIENCE).heartbeat(MS * 20)
}

const MS: Duration = Duration::from_millis(1);

/// The next event that is no heartbeat, in words.
#[track_caller]
fn next(feed: &mut Feed) -> String {
    loop {
        match feed.next(PATIENCE).expect("there is more") {
            Event::Beat(_) => {}
            Event::Began(_) => return "began".to_owned(),
            Event::Lost(why) => return format!("lost {}", why.word()),
            Event::Change(change) => {
                let key = match change.key {
                    Key::Text(key) => key.escape_ascii().to_string(),
                    Key::Hash(hash) => format!("{hash:016x}"),
                    Key::All => "*".to_owned(),
                };
                return format!("{:?} {} {key} {}", change.what, change.cause, change.origin);
            }
        }
    }
}

#[test]
fn what_happens_is_told_with_its_cause_and_origin() {
    let server = Kind::Ketch.start();
    let client = Client::new([server.node()], patient());
    let mut all = Feed::new(server.node(), &patient(), ask());
    let mut some = Feed::new(server.node(), &patient(), ask().prefix("user:ä"));
    let mut hashes = Feed::new(server.node(), &patient(), ask().form(Form::Hash));
    for feed in [&mut all, &mut some, &mut hashes] {
        assert_eq!((feed.place(), feed.known_until()), (None, None));
        assert_eq!(next(feed), "began");
    }
    client.set("foobar", "x", None).expect("up");
    client.set("user:ä b", "x", None).expect("up");
    assert!(client.delete("foobar").expect("up"));
    server.connect().round("ms k 1 L77\r\nx\r\n", "HD\r\n");
    let _ = client.flush_all();
    for wanted in [
        "Set set foobar 0",
        "Set set user:\\xc3\\xa4 b 0",
        "Delete md foobar 0",
        "Set set k 77",
        "Flush flush_all * 0",
    ] {
        assert_eq!(next(&mut all), wanted);
    }
    assert_eq!(next(&mut some), "Set set user:\\xc3\\xa4 b 0");
    assert_eq!(next(&mut some), "Flush flush_all * 0");
    assert_eq!(next(&mut hashes), "Set set 85944171f73967e8 0");
    // What was before a heartbeat is known at it.
    let now = Instant::now();
    while all.known_until().expect("it reads") <= now {
        assert!(matches!(all.next(PATIENCE), Some(Event::Beat(_))));
    }
    assert!(all.known_until() <= Some(Instant::now()));
    assert!(matches!(
        all.next(Duration::ZERO),
        None | Some(Event::Beat(_))
    ));
}

/// A node without a feed is told from one that is not there.
#[test]
fn nodes_that_have_no_feed_for_us_say_why() {
    let first = |node: Node, options: &ClientOptions| next(&mut Feed::new(node, options, ask()));
    let stock = Kind::Memcached.start();
    assert_eq!(first(stock.node(), &patient()), "lost no_feed");
    let forbidden = Kind::Ketch.start_with(&["-W"]);
    assert_eq!(first(forbidden.node(), &patient()), "lost no_feed");
    let nowhere = Node::new("127.0.0.1", 1);
    let mut feed = Feed::new(nowhere, &patient(), ask());
    assert_eq!(
        [next(&mut feed), next(&mut feed)],
        ["lost connect", "lost connect"]
    );
    let unknown = Node::new("no-such-host.invalid", 11211);
    assert_eq!(first(unknown, &ClientOptions::default()), "lost connect");
}

#[test]
fn it_logs_in() {
    let file = std::env::temp_dir().join(format!("ketch-feed-users-{}", std::process::id()));
    std::fs::write(&file, "me:secret\n").expect("a file");
    let server = Kind::Ketch.start_with(&["-Y", file.to_str().expect("text")]);
    let first = |options| next(&mut Feed::new(server.node(), &options, ask()));
    assert_eq!(first(patient()), "lost sign_in");
    assert_eq!(first(patient().login("me", "wrong")), "lost sign_in");
    assert_eq!(first(patient().login("me", "secret")), "began");
    std::fs::remove_file(&file).expect("the file");
}

#[test]
fn it_comes_back_to_where_it_was() {
    let mut server = Kind::Ketch.start_with(&["-o", "feed_ring=1"]);
    let mut client = Client::new([server.node()], patient());
    let mut feed = Feed::new(server.node(), &patient(), ask().silence(300 * MS));
    assert_eq!(next(&mut feed), "began");
    client.set("a", "1", None).expect("up");
    assert_eq!(next(&mut feed), "Set set a 0");
    // Silence: all that was missed meanwhile is told.
    server.freeze(true);
    let silent_since = Instant::now();
    assert_eq!(next(&mut feed), "lost silent");
    let silence = silent_since.elapsed();
    assert!(silence >= 250 * MS && silence < PATIENCE, "{silence:?}");
    assert_eq!(feed.known_until(), None);
    server.freeze(false);
    client.set("b", "2", None).expect("up");
    let place = feed.place().expect("it has begun");
    while matches!(next(&mut feed).as_str(), "lost silent") {}
    assert_eq!(next(&mut feed), "Set set b 0");
    assert_eq!(feed.place().map(|place| place.seq), Some(place.seq + 1));
    // Another process goes on from there.
    let place = feed.place();
    drop(feed);
    client.set("c", "3", None).expect("up");
    let mut feed = Feed::new(server.node(), &patient(), ask().from(place));
    assert_eq!([next(&mut feed), next(&mut feed)], ["began", "Set set c 0"]);
    // The ring has gone on without it.
    let place = feed.place();
    drop(feed);
    let pairs: Vec<(String, &str)> = (0..60_000)
        .map(|n| (format!("a-longer-key-{n:08}"), "x"))
        .collect();
    let _ = client.set_multi(pairs, None);
    let mut feed = Feed::new(server.node(), &patient(), ask().from(place));
    assert_eq!([next(&mut feed), next(&mut feed)], ["began", "lost gap"]);
    // Another process of the server.
    server.kill();
    assert_eq!(next(&mut feed), "lost closed");
    server.restart();
    let mut said = next(&mut feed);
    while said == "lost connect" {
        said = next(&mut feed);
    }
    assert_eq!([said, next(&mut feed)], ["began", "lost epoch"]);
    client = Client::new([server.node()], patient());
    client.set("d", "4", None).expect("up");
    assert_eq!(next(&mut feed), "Set set d 0");
}

#[test]
fn a_place_from_another_world_is_one_that_is_lost() {
    let server = Kind::Ketch.start();
    let from = Place { epoch: 7, seq: 7 };
    let mut feed = Feed::new(server.node(), &patient(), ask().from(from));
    assert_eq!([next(&mut feed), next(&mut feed)], ["began", "lost epoch"]);
    assert_eq!(
        feed.next(Duration::ZERO)
            .filter(|event| !matches!(event, Event::Beat(_))),
        None
    );
    assert!(Lost::Hole.is_over() && !Lost::Gap.is_over());
    assert_ne!(What::Set, What::Delete);
}

fn _is_send(feed: Feed, _: &Server) -> impl Send {
    feed
}

/// The feed, and a near cache that follows it, through TLS.
#[test]
fn a_feed_goes_through_tls() {
    let dir = std::env::temp_dir().join(format!("ketch-feed-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["cache.test".to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate");
    std::fs::write(dir.join("cert.pem"), cert.pem()).expect("a file");
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).expect("a file");
    let dir_name = dir.display();
    let files = format!("ssl_chain_cert={dir_name}/cert.pem,ssl_key={dir_name}/key.pem");
    let server = Kind::Ketch.start_with(&["-m", "64", "-Z", "-o", &files]);
    let options = |name: &str| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that ring has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        patient().tls(Arc::new(config), Some(name.to_owned()))
    };
    let mut stranger = Feed::new(server.node(), &options("other.test"), ask());
    assert_eq!(next(&mut stranger), "lost sign_in");

    let mut feed = Feed::new(server.node(), &options("cache.test"), ask());
    assert_eq!(next(&mut feed), "began");
    let writer = Client::new([server.node()], options("cache.test"));
    // Many records of TLS: more than its buffers and the socket's hold at a time.
    const COUNT: usize = 20_000;
    let keys: Vec<String> = (0..COUNT).map(|n| format!("user:{n:0100}")).collect();
    for some in keys.chunks(1000) {
        let stored = writer.set_multi(some.iter().map(|key| (key, "x")), None);
        assert!(stored.iter().all(Result::is_ok));
    }
    for key in &keys {
        assert_eq!(next(&mut feed), format!("Set set {key} 0"));
    }

    let recorder = Arc::new(Recorder::default());
    let near = NearCache::new(Duration::from_secs(3600)).follow_within(PATIENCE);
    let following = options("cache.test")
        .near_cache(near)
        .metrics(recorder.clone());
    let reader = Client::new([server.node()], following);
    wait_until("it is followed", || recorder.feeds_armed() == 1);
    let text = || {
        let item = reader.get("k").expect("up");
        item.and_then(|item| item.text().map(str::to_owned))
    };
    writer.set("k", "old", None).expect("up");
    wait_until("it is near", || {
        let (before, _) = recorder.near_lookups();
        text();
        recorder.near_lookups().0 > before
    });
    writer.set("k", "new", None).expect("up");
    wait_until("the old value goes", || text().as_deref() == Some("new"));
    std::fs::remove_dir_all(&dir).expect("it is ours");
}
