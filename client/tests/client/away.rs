//! Keys whose home is another region: two rings, and a relay between them.

use std::time::Duration;

use ketch_client::feed::{Ask, Event, Feed, Key, What};
use ketch_client::{AsyncClient, Client};
use ketch_testing::{Conn, Kind, PATIENCE, Server, wait_until};

use crate::as_node::AsNode;
use crate::patience::patient;

const TTL: Duration = Duration::from_secs(1000);

fn ring(nodes: usize) -> (Vec<Server>, Client) {
    let servers: Vec<Server> = (0..nodes).map(|_| Kind::Ketch.start()).collect();
    let client = Client::new(servers.iter().map(Server::node), patient());
    (servers, client)
}

fn text(found: Option<ketch_client::Item>) -> Option<String> {
    found.and_then(|item| item.text().map(str::to_owned))
}

/// What a relay does with one change of a key: it is deleted there, and its marker as well, if that is of this change.
fn relay(feed: &mut Feed, to: &mut Conn) -> Option<String> {
    loop {
        match feed.next(Duration::from_millis(300))? {
            Event::Change(change) => {
                let Key::Text(key) = change.key else { continue };
                let key = std::str::from_utf8(key).expect("text").to_owned();
                assert!(matches!(change.what, What::Set | What::Delete));
                let deletes = format!("md {key} q\r\nmd {key}~away C{} q\r\nmn\r\n", change.cas);
                to.send(deletes);
                // What was not there, or is of another change, is said.
                to.read_until(b"MN\r\n");
                return Some(key);
            }
            Event::Lost(why) => panic!("{why}"),
            _ => {}
        }
    }
}

#[test]
fn what_is_written_away_from_home_is_read_there_until_the_relay_has_passed() {
    let (here_servers, here) = ring(1);
    let (home_servers, home) = ring(1);
    let mut feed = Feed::new(
        home_servers[0].node(),
        &patient(),
        Ask::default().silence(PATIENCE),
    );
    assert!(matches!(feed.next(PATIENCE), Some(Event::Began(_))));
    let mut to = here_servers[0].connect();
    let marked = |key: &str| here.get(format!("{key}~away")).expect("up").is_some();
    let regions = here.remote_marker(&home, TTL);

    // What is here is read here, also what was brought from home.
    here.set("k", "old", None).expect("up");
    home.set("k", "home", None).expect("up");
    assert_eq!(relay(&mut feed, &mut to).as_deref(), Some("k"));
    assert_eq!(regions.get("k"), Ok(None));
    here.set("k", "old", None).expect("up");
    assert_eq!(text(regions.get("k").expect("up")).as_deref(), Some("old"));

    // A change of before is still on its way when this one is made: it does not take the marker away.
    home.set("k", "before", None).expect("up");
    regions.set("k", "new", None).expect("up");
    assert!(marked("k"));
    assert_eq!(text(regions.get("k").expect("up")).as_deref(), Some("new"));
    assert_eq!(relay(&mut feed, &mut to).as_deref(), Some("k"));
    here.set("k", "what a reader here has filled in", None)
        .expect("up");
    assert!(marked("k"), "the relay has not passed yet");
    assert_eq!(text(regions.get("k").expect("up")).as_deref(), Some("new"));
    assert_eq!(relay(&mut feed, &mut to).as_deref(), Some("k"));
    assert!(!marked("k"));
    assert_eq!(regions.get("k"), Ok(None), "read here");

    // A delete is marked for the whole time.
    assert_eq!(regions.delete("k"), Ok(true));
    here.set("k", "filled in", None).expect("up");
    assert_eq!(regions.get("k"), Ok(None));
    assert_eq!(relay(&mut feed, &mut to).as_deref(), Some("k"));
    assert!(marked("k"));
    assert_eq!(relay(&mut feed, &mut to), None, "all is relayed");

    // Two write the same key at once: nobody knows which was first at home, and the marker stays.
    let racing = here.remote_marker(&home, Duration::from_secs(2));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let racing = &racing;
            scope.spawn(move || {
                for n in 0..50 {
                    racing.set("k2", format!("{writer}:{n}"), None).expect("up");
                    // One's own write, or a later one: never what is here.
                    let read = text(racing.get("k2").expect("up")).expect("it is at home");
                    assert!(read.contains(':'), "{read}");
                }
            });
        }
    });
    // Its time is its end.
    here.set("k2", "here", None).expect("up");
    wait_until("it is over", || !marked("k2"));
    assert_eq!(text(racing.get("k2").expect("up")).as_deref(), Some("here"));
}

/// Where the marker cannot be put, nothing is written; where it cannot be seen, home is asked.
#[test]
fn a_region_that_is_down() {
    let (mut here_servers, _) = ring(1);
    let (_home_servers, home) = ring(1);
    let here = Client::new(
        here_servers.iter().map(Server::node),
        ketch_client::ClientOptions::default(),
    );
    let regions = here.remote_marker(&home, TTL);
    regions.set("k", "1", None).expect("up");
    here_servers[0].kill();
    wait_until("it is down", || here.get("x").is_err());
    assert!(regions.set("k", "2", None).is_err());
    assert!(regions.delete("k").is_err());
    assert_eq!(text(home.get("k").expect("up")).as_deref(), Some("1"));
    assert_eq!(
        text(regions.get("k").expect("home is up")).as_deref(),
        Some("1")
    );
}

#[tokio::test]
async fn the_same_for_tasks() {
    let (here_servers, home_servers) = (Kind::Ketch.start(), Kind::Ketch.start());
    let here = AsyncClient::new([here_servers.node()], patient().prefix("p:"));
    let home = AsyncClient::new([home_servers.node()], patient().prefix("p:"));
    let regions = here.remote_marker(&home, TTL);
    regions.set("k", "1", None).await.expect("up");
    assert_eq!(
        text(regions.get("k").await.expect("up")).as_deref(),
        Some("1")
    );
    // The unique of the marker is that of the item.
    let cas = home_servers.connect().cas_of("p:k");
    let mut conn = here_servers.connect();
    conn.round(format!("md p:k~away C{cas}\r\n"), "HD\r\n");
    assert_eq!(regions.get("k").await, Ok(None));
    assert_eq!(regions.delete("k").await, Ok(true));
    assert_eq!(regions.get("k").await, Ok(None));
}
