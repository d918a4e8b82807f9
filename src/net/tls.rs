//! Certificates and keys become what a TLS connection starts from, at the start and again while the server runs.
//!
//! ```text
//!  ssl_chain_cert, ssl_key, ssl_ca_cert --(load)--> Configs { ignored, optional, required }   one for each way to ask
//!       ^                                              |                                      for a client's certificate
//!       '-- refresh_certs, SIGHUP: all or nothing      '--(accept)--> TlsStream, which keeps its config to its end
//! ```
//!
//! C1. A reload that fails changes nothing; one that succeeds is for the connections that come after it.
//! C2. Sessions are resumed only within one config: neither a listener that asks for certificates nor a reload that took
//!     a root away can be passed by with a session from elsewhere.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use mio::net::TcpStream;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};

use super::tls_stream::TlsStream;
use crate::settings::{self, ClientCert, TlsVersion};
use crate::stats::TlsCounters;

/// Sessions kept for clients that come back, with `-o ssl_session_cache`: OpenSSL's number.
const SESSIONS_MAX: usize = 20 * 1024;
/// Tickets given to a client after a TLS 1.3 handshake: OpenSSL's number.
const TICKETS: usize = 2;

/// TLS as the listeners use it.
#[derive(Debug)]
pub struct Tls {
    settings: settings::Tls,
    provider: Arc<CryptoProvider>,
    configs: Mutex<Configs>,
    counters: Arc<TlsCounters>,
}

/// What a connection starts from, by what its listener asks of clients.
#[derive(Debug)]
struct Configs {
    ignored: Arc<ServerConfig>,
    /// Both are there if there are roots to check a certificate against.
    asking: Option<Asking>,
}

#[derive(Debug)]
struct Asking {
    optional: Arc<ServerConfig>,
    required: Arc<ServerConfig>,
}

impl Tls {
    /// Loads the files that `settings` name. The error names the file.
    pub fn load(settings: &settings::Tls, counters: Arc<TlsCounters>) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let configs = Mutex::new(Configs::load(settings, &provider)?);
        Ok(Tls {
            settings: settings.clone(),
            provider,
            configs,
            counters,
        })
    }

    /// Loads the files again, for the connections to come (C1). The error is a line for whoever asked.
    pub fn reload(&self) -> Result<(), String> {
        let configs = Configs::load(&self.settings, &self.provider)?;
        *self
            .configs
            .lock()
            .expect("no holder of the configs panics") = configs;
        Ok(())
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<TlsCounters> {
        &self.counters
    }

    /// The server's side of a connection whose client has sent nothing yet.
    pub(super) fn accept(&self, socket: TcpStream, cert: ClientCert) -> Result<TlsStream, String> {
        let config = self.config(cert).ok_or("no roots to check clients with")?;
        TlsStream::new(
            socket,
            config,
            self.settings.wbuf_bytes,
            self.counters.clone(),
        )
        .map_err(|error| {
            self.counters.ssl_handshake_errors.fetch_add(1, Relaxed);
            error.to_string()
        })
    }

    fn config(&self, cert: ClientCert) -> Option<Arc<ServerConfig>> {
        let configs = self
            .configs
            .lock()
            .expect("no holder of the configs panics");
        let asking = configs.asking.as_ref();
        match cert {
            ClientCert::Ignored => Some(configs.ignored.clone()),
            ClientCert::Optional => asking.map(|asking| asking.optional.clone()),
            ClientCert::Required => asking.map(|asking| asking.required.clone()),
        }
    }
}

impl Configs {
    fn load(settings: &settings::Tls, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let (Some(chain_file), Some(key_file)) = (&settings.chain_cert, settings.key_file()) else {
            return Err("Error loading the certificate chain: none is named".to_owned());
        };
        let chain = certificates(chain_file)
            .map_err(|reason| told("loading the certificate chain", chain_file, &reason))?;
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|error| told("loading the key", key_file, &reason(&error)))?;
        let roots = match &settings.ca_cert {
            Some(file) => {
                let failed = |reason: String| told("loading the CA certificate", file, &reason);
                let mut roots = RootCertStore::empty();
                for root in certificates(file).map_err(failed)? {
                    roots.add(root).map_err(|error| failed(error.to_string()))?;
                }
                Some(Arc::new(roots))
            }
            None => None,
        };
        let config = |cert| config(settings, provider, &chain, &key, roots.as_ref(), cert);
        Ok(Configs {
            ignored: config(ClientCert::Ignored)?,
            asking: match &roots {
                Some(_) => Some(Asking {
                    optional: config(ClientCert::Optional)?,
                    required: config(ClientCert::Required)?,
                }),
                None => None,
            },
        })
    }
}

fn config(
    settings: &settings::Tls,
    provider: &Arc<CryptoProvider>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    roots: Option<&Arc<RootCertStore>>,
    cert: ClientCert,
) -> Result<Arc<ServerConfig>, String> {
    let invalid =
        |reason: &dyn std::fmt::Display| format!("Error validating the certificate: {reason}");
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| invalid(&error))?;
    let builder = match (cert, roots) {
        (ClientCert::Ignored, _) | (_, None) => builder.with_no_client_auth(),
        (_, Some(roots)) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
            let verifier = match cert {
                ClientCert::Required => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| invalid(&error))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(|error| invalid(&error))?;
    if settings.session_cache {
        // A cache of this config's own (C2).
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        config.send_tls13_tickets = TICKETS;
    } else {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// The certificates in a file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if all.is_empty() => Err("no certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(reason(&error)),
    }
}

fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "no private key in it".to_owned(),
        error => error.to_string(),
    }
}

/// memcached's line, which `refresh_certs` answers.
fn told(doing: &str, file: &Path, reason: &str) -> String {
    format!("Error {doing}: {} : {reason}", file.display())
}
