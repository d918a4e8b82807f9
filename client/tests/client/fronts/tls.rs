//! TLS to the nodes: certificates that are trusted, and such that are not. Debian's memcached is built without TLS, so
//! the peer is ketch.

use std::fs;
use std::sync::Arc;

use ketch_client::topology::{ClusterEndpoint, Source, SourceError};
use ketch_client::{ClientOptions, Error, Failure, Node};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::Client;
use crate::as_node::AsNode;
use ketch_testing::{Kind, PATIENCE};

/// What trusts `cert` alone.
fn trusting(cert: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).expect("a certificate");
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions that ring has")
            .with_root_certificates(roots)
            .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn values_go_through_tls_and_strangers_are_refused() {
    let dir = std::env::temp_dir().join(format!("ketch-client-tls-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let make = || {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["cache.test".to_owned()]).expect("a name");
        (params.self_signed(&key).expect("a certificate"), key)
    };
    let (cert, key) = make();
    fs::write(dir.join("cert.pem"), cert.pem()).expect("a file");
    fs::write(dir.join("key.pem"), key.serialize_pem()).expect("a file");
    let files = format!(
        "ssl_chain_cert={0}/cert.pem,ssl_key={0}/key.pem",
        dir.display()
    );
    let server = Kind::Ketch.start_with(&["-m", "256", "-Z", "-o", &files]);
    let client = |config, name: Option<&str>| {
        let options = ClientOptions::default()
            .attempt_timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .request_timeout(PATIENCE)
            .tls(config, name.map(str::to_owned));
        Client::new([Node::new("127.0.0.1", server.port())], options)
    };

    // Its list of nodes is asked for in the same way.
    let options = ClientOptions::default().tls(trusting(cert.der()), Some("cache.test".to_owned()));
    let mut source = ClusterEndpoint::new([server.node()]);
    let error = source.nodes().expect_err("it speaks TLS only");
    assert!(matches!(error, SourceError::Io(_)), "{error}");
    source.adopt(&options);
    let error = source.nodes().expect_err("there is none");
    assert!(matches!(error, SourceError::NotServed), "{error}");
    let mut plain = source.clone().plain();
    plain.adopt(&options);
    assert!(matches!(plain.nodes(), Err(SourceError::Io(_))));

    let good = client(trusting(cert.der()), Some("cache.test"));
    assert_eq!(good.set("k", "v", None), Ok(()));
    assert_eq!(good.get("k").expect("up").expect("stored").value, "v");
    // More than the sockets and TLS hold, both ways at once.
    let value = vec![b'x'; 200_000];
    let keys: Vec<String> = (0..100).map(|i| format!("large:{i}")).collect();
    assert!(
        good.set_multi(keys.iter().map(|key| (key, &value)), None)
            .iter()
            .all(Result::is_ok)
    );
    for found in good.get_multi(&keys) {
        assert_eq!(found.expect("up").expect("stored").value, value);
    }

    let (stranger, _) = make();
    for (config, name, says) in [
        (
            trusting(stranger.der()),
            Some("cache.test"),
            "TLS with \"cache.test\": invalid peer certificate: ",
        ),
        (
            trusting(cert.der()),
            Some("other.test"),
            "TLS with \"other.test\": invalid peer certificate: certificate not valid for name \"other.test\"",
        ),
        // The certificate is not for the address.
        (trusting(cert.der()), None, "TLS with \"127.0.0.1\": "),
        (
            trusting(cert.der()),
            Some("no name"),
            "TLS with \"no name\": ",
        ),
    ] {
        let error = client(config, name).get("k").expect_err("strangers");
        let failure = Failure::SignIn;
        assert!(
            matches!(&error, Error::Node { failure: found, reason: Some(_), .. } if *found == failure),
            "{error:?}"
        );
        assert!(error.to_string().contains(says), "{error}");
    }
    fs::remove_dir_all(&dir).expect("it is ours");
}
