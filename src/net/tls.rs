//! Certificates and keys become what a TLS connection starts from, at the start and again while the server runs.
//!
//! ```text
//!  ssl_chain_cert, ssl_key, ssl_ca_cert --(load)--> Configs { ignored, optional, required }   one for each way to ask
//!       ^                                              |                                      for a client's certificate
//!       '-- refresh_certs, SIGHUP: all or nothing      '--(accept)--> TlsStream, which keeps its config to its end
//! ```
//!
//! Tl1. A reload that fails changes nothing; one that succeeds is for the connections that come after it.
//! Tl2. Sessions are resumed only within one config: neither a listener that asks for certificates nor a reload that took
//!     a root away can be passed by with a session from elsewhere.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use mio::net::TcpStream;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig, version};

use super::ciphers;
use super::client_cert::Verifier;
use super::tls_files::{certificates, key};
use super::tls_stream::TlsStream;
use super::x509::Certificate;
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
    optional: Arc<ServerConfig>,
    required: Arc<ServerConfig>,
}

impl Tls {
    /// Loads the files that `settings` name. The error names the file.
    pub fn load(settings: &settings::Tls, counters: Arc<TlsCounters>) -> Result<Self, String> {
        let mut provider = ring::default_provider();
        if let Some(list) = &settings.ciphers {
            let told = |what: &str| format!("-o ssl_ciphers={list}: {what}");
            let unknown = ciphers::select(list, &mut provider.cipher_suites);
            let unknown = unknown.map_err(|reason| told(&reason))?;
            if !unknown.is_empty() {
                let names = unknown.join(", ");
                log::warn!("{}", told(&format!("not spoken, and left out: {names}")));
            }
        }
        let provider = Arc::new(provider);
        let configs = Mutex::new(Configs::load(settings, &provider)?);
        Ok(Tls {
            settings: settings.clone(),
            provider,
            configs,
            counters,
        })
    }

    /// Loads the files again, for the connections to come (Tl1). The error is a line for whoever asked.
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
    pub(crate) fn accept(&self, socket: TcpStream, cert: ClientCert) -> Result<TlsStream, String> {
        TlsStream::new(
            socket,
            self.config(cert),
            self.settings.wbuf_bytes,
            self.counters.clone(),
        )
        .map_err(|error| {
            self.counters.ssl_handshake_errors.fetch_add(1, Relaxed);
            error.to_string()
        })
    }

    fn config(&self, cert: ClientCert) -> Arc<ServerConfig> {
        let configs = self
            .configs
            .lock()
            .expect("no holder of the configs panics");
        let config = match cert {
            ClientCert::Ignored => &configs.ignored,
            ClientCert::Optional => &configs.optional,
            ClientCert::Required => &configs.required,
        };
        config.clone()
    }
}

impl Configs {
    fn load(settings: &settings::Tls, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let (Some(chain_file), Some(key_file)) = (&settings.chain_cert, settings.key_file()) else {
            return Err("Error loading the certificate chain: none is named".to_owned());
        };
        let chain = certificates(chain_file)
            .map_err(|reason| told("loading the certificate chain", chain_file, &reason))?;
        let key = key(key_file, provider).map_err(|reason| {
            let option = if settings.key.is_some() {
                "ssl_key"
            } else {
                "ssl_chain_cert"
            };
            told(
                "loading the key",
                key_file,
                &format!("{reason} (-o {option})"),
            )
        })?;
        let own = CertifiedKey::new(chain, key);
        check_pair(&own).map_err(|reason| format!("Error validating the certificate: {reason}"))?;
        let own = Arc::new(SingleCertAndKey::from(own));
        let (roots, ca_file) = match &settings.ca_cert {
            Some(file) => {
                let roots = certificates(file)
                    .map_err(|reason| told("loading the CA certificate", file, &reason))?;
                (roots, file.as_path())
            }
            None => (Vec::new(), Path::new("")),
        };
        let roots: Arc<[CertificateDer<'static>]> = roots.into();
        let config = |cert| {
            let verifier = match cert {
                ClientCert::Ignored => None,
                _ => {
                    let required = cert == ClientCert::Required;
                    let verifier = Verifier::new(roots.clone(), provider, required);
                    let told =
                        |reason: String| told("loading the CA certificate", ca_file, &reason);
                    Some(verifier.map_err(told)?)
                }
            };
            config(settings, provider, &own, verifier)
        };
        Ok(Configs {
            ignored: config(ClientCert::Ignored)?,
            optional: config(ClientCert::Optional)?,
            required: config(ClientCert::Required)?,
        })
    }
}

fn config(
    settings: &settings::Tls,
    provider: &Arc<CryptoProvider>,
    own: &Arc<SingleCertAndKey>,
    verifier: Option<Verifier>,
) -> Result<Arc<ServerConfig>, String> {
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| format!("Error validating the certificate: {error}"))?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
    };
    let mut config = builder.with_cert_resolver(own.clone());
    if settings.session_cache {
        // A cache of this config's own (Tl2).
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        config.send_tls13_tickets = TICKETS;
    } else {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// Whether certificate and key belong together. Certificates of version 1, which rustls does not read, are read here: it is
/// the client that judges them.
fn check_pair(own: &CertifiedKey) -> Result<(), String> {
    match own.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InvalidCertificate(error)) => {
            let leaf = own.end_entity_cert().map_err(|error| error.to_string())?;
            let cert = Certificate::parse(leaf).filter(|cert| cert.version < 3);
            let cert = cert.ok_or_else(|| Error::InvalidCertificate(error).to_string())?;
            match own.key.public_key() {
                Some(key) if *key != *cert.key_info => {
                    Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch).to_string())
                }
                _ => Ok(()),
            }
        }
        Err(error) => Err(error.to_string()),
    }
}

/// memcached's line, which `refresh_certs` answers.
fn told(doing: &str, file: &Path, reason: &str) -> String {
    format!("Error {doing}: {} : {reason}", file.display())
}
