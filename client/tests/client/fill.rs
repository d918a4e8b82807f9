//! Values that come from elsewhere, each with its own time to live.

use std::time::Duration;

use crate::as_node::AsNode;
use ketch_client::continuum::{Continuum, Distribution, Placement};
use ketch_client::{Client, ClientOptions, Error, KeyFault};
use ketch_testing::{KINDS, PATIENCE, Server};

#[test]
fn newer_values_stay_unless_they_are_to_go() {
    for kind in KINDS {
        let servers: Vec<Server> = (0..2).map(|_| kind.start()).collect();
        let placement = Placement::from(Distribution::Ketama).hash_tags(true);
        let options = ClientOptions::default()
            .request_timeout(PATIENCE)
            .attempt_timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .placement(placement);
        let client = Client::new(servers.iter().map(Server::node), options);
        client.set("{t}there", "new", None).expect("up");
        let minute = Some(Duration::from_secs(60));
        let entries = [
            ("{t}there", ("old", 1), minute),
            ("", ("", 0), None),
            ("{t}a", ("1", 7), minute),
            ("{t}b", ("2", 8), None),
        ];
        let fault = Err(Error::Key(KeyFault::Empty));
        let results = client.fill_multi(entries, false);
        assert_eq!(results, [Ok(false), fault.clone(), Ok(true), Ok(true)]);
        let nodes: Vec<_> = servers.iter().map(Server::node).collect();
        let owner = Continuum::new(placement, &nodes).locate(b"t");
        let owner = &servers[owner.expect("two nodes")];
        for (key, held) in [("there", "new"), ("a", "1"), ("b", "2")] {
            assert_eq!(owner.holds(&format!("{{t}}{key}")).as_deref(), Some(held));
        }
        let told = owner.ask("mg {t}a t f\r\nmg {t}b t f\r\nmn\r\n", "MN\r\n");
        let told: Vec<&str> = told.split("\r\n").collect();
        assert!(["HD t60 f7", "HD t59 f7"].contains(&told[0]), "{told:?}");
        assert_eq!(told[1], "HD t-1 f8");
        let results = client.fill_multi(entries, true);
        assert_eq!(results, [Ok(true), fault, Ok(true), Ok(true)]);
        assert_eq!(owner.holds("{t}there").as_deref(), Some("old"));
    }
}
