//! The options that say how nodes are spoken to: deadlines, TLS, login, copies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use getopts::{Matches, Options};
use ketch_client::topology::Source;
use ketch_client::{Client, ClientOptions, Node, OnEjection};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::units;

/// The longest a request takes, unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Where Debian keeps the authorities that all programs trust.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How nodes are spoken to.
#[derive(Debug, Clone)]
pub struct Access {
    /// The longest a request takes.
    pub timeout: Duration,
    /// User and password.
    pub login: Option<(String, String)>,
    /// TLS, and what the certificates are for if not the hosts.
    pub tls: Option<(Arc<ClientConfig>, Option<String>)>,
}

/// Adds the options to those of a command.
pub fn options(options: &mut Options) {
    options.optopt(
        "t",
        "timeout",
        "the longest a request takes (default 2s; copy 5s, top 1s)",
        "TIME",
    );
    options_of(options, "");
}

/// TLS and login, under names that begin with `prefix`.
pub fn options_of(options: &mut Options, prefix: &str) {
    let name = |name: &str| format!("{prefix}{name}");
    options
        .optflag("", &name("tls"), "speak TLS")
        .optopt(
            "",
            &name("ca"),
            "trust what the certificates in this file signed (default: the system's); implies TLS",
            "FILE",
        )
        .optopt(
            "",
            &name("tls-name"),
            "the name in the certificates, if not the host; implies TLS",
            "NAME",
        )
        .optopt(
            "",
            &name("cert"),
            "our own certificate; implies TLS",
            "FILE",
        )
        .optopt("", &name("key"), "its key", "FILE")
        .optopt("", &name("user"), "log in, as -Y of the nodes asks", "NAME")
        .optopt(
            "",
            &name("password"),
            "its password; others see it in the list of processes, so better: KETCHCTL_PASSWORD in the environment",
            "WORD",
        );
}

/// What they were given.
pub fn from(matches: &Matches) -> Result<Access, Failure> {
    from_of(matches, "")
}

/// What those with this prefix were given. `--timeout` has no prefix.
pub fn from_of(matches: &Matches, prefix: &str) -> Result<Access, Failure> {
    let given = |name: &str| matches.opt_str(&format!("{prefix}{name}"));
    let timeout = match matches.opt_str("timeout") {
        Some(text) => units::duration(&text)
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| Failure::usage(format!("--timeout {text} is no time, like 2s")))?,
        None => TIMEOUT,
    };
    let login = match (given("user"), given("password")) {
        (Some(user), Some(password)) => Some((user, password)),
        (Some(user), None) => match std::env::var("KETCHCTL_PASSWORD") {
            Ok(password) => Some((user, password)),
            Err(_) => {
                return Err(Failure::usage(format!(
                    "--{prefix}user needs --{prefix}password, or KETCHCTL_PASSWORD in the environment"
                )));
            }
        },
        (None, Some(_)) => {
            return Err(Failure::usage(format!(
                "--{prefix}password needs --{prefix}user"
            )));
        }
        (None, None) => None,
    };
    let (ca, name) = (given("ca"), given("tls-name"));
    let identity = match (given("cert"), given("key")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            return Err(Failure::usage(format!(
                "--{prefix}cert and --{prefix}key come together"
            )));
        }
    };
    let wanted = matches.opt_present(&format!("{prefix}tls"));
    let tls = if wanted || ca.is_some() || name.is_some() || identity.is_some() {
        Some((tls_config(ca.as_deref(), identity)?, name))
    } else {
        None
    };
    Ok(Access {
        timeout,
        login,
        tls,
    })
}

fn tls_config(
    ca: Option<&str>,
    identity: Option<(String, String)>,
) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    let ca = ca.unwrap_or(SYSTEM_CA);
    roots.add_parsable_certificates(certificates(ca)?);
    if roots.is_empty() {
        return Err(Failure::failed(format!("{ca}: no certificate in it")));
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(&cert)?;
            let private = PrivateKeyDer::from_pem_file(Path::new(&key))
                .map_err(|error| Failure::failed(format!("{key}: {error}")))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| Failure::failed(format!("{cert}, {key}: {error}")))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    CertificateDer::pem_file_iter(Path::new(file))
        .and_then(Iterator::collect)
        .map_err(|error| Failure::failed(format!("{file}: {error}")))
}

impl Access {
    /// With another timeout than usual, where the user has given none.
    pub fn or_within(self, matches: &Matches, usual: Duration) -> Access {
        match matches.opt_present("timeout") {
            true => self,
            false => Access {
                timeout: usual,
                ..self
            },
        }
    }

    /// Has a source speak to nodes as we do, if it is nodes that it asks.
    pub fn adopt_in(&self, source: &mut dyn Source) {
        source.adopt(&self.client_options());
    }

    /// A client of the whole cluster.
    pub fn client(&self, cluster: &Cluster) -> Client {
        Client::new(cluster.nodes.clone(), self.options(cluster))
    }

    /// The options of such a client.
    pub fn options(&self, cluster: &Cluster) -> ClientOptions {
        let options = self.client_options().placement(cluster.placement);
        options.copies(cluster.copies)
    }

    /// A client of one node.
    pub fn client_of(&self, node: &Node) -> Client {
        Client::new([node.clone()], self.client_options())
    }

    /// People want to see what is wrong with a node: one attempt, and nothing is looked for, or put, where it does not
    /// belong.
    pub fn client_options(&self) -> ClientOptions {
        let mut options = ClientOptions::default()
            .request_timeout(self.timeout)
            .attempt_timeout(self.timeout)
            .connect_timeout(self.timeout)
            .on_ejection(OnEjection::FailFast)
            .eject_after(u32::MAX)
            .retries(0);
        if let Some((user, password)) = &self.login {
            options = options.login(user, password);
        }
        if let Some((config, name)) = &self.tls {
            options = options.tls(config.clone(), name.clone());
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Result<Access, Failure> {
        let mut options = Options::new();
        super::options(&mut options);
        options_of(&mut options, "from-");
        from(&options.parse(words)?)
    }

    #[test]
    fn from_the_command_line() {
        let access = given(&["--timeout", "300ms", "--user", "me", "--password", "p w"]).unwrap();
        assert_eq!(access.timeout, Duration::from_millis(300));
        assert_eq!(access.login, Some(("me".into(), "p w".into())));
        assert!(access.tls.is_none());
        assert_eq!(given(&["--from-user", "a"]).unwrap().login, None);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (words, told) in [
            (&["--timeout", "soon"][..], "--timeout soon"),
            (&["--timeout", "0"], "--timeout 0"),
            (&["--password", "p"], "needs --user"),
            (&["--cert", "a"], "come together"),
            (&["--ca", "/nowhere"], "/nowhere: "),
        ] {
            match given(words) {
                Err(Failure::Usage(text) | Failure::Failed(text)) => {
                    assert!(text.contains(told), "{text}")
                }
                other => panic!("{words:?}: {other:?}"),
            }
        }
    }
}
